package ZoneMesh::Node;

# One nginx: its prefix folder, configuration, processes and error log.
#
# new(...) takes parts of a configuration, or a whole one:
#   http, stream     what stands inside these blocks; a block that isn't given isn't written
#   main, events     further lines of the main level and of events (default: worker_connections 512)
#   workers          worker_processes (default 1)
#   user             the user that workers run as (default nobody; '' leaves the line out)
#   single           true: it runs without a master (`main` has to say so)
#   daemon           true: it is started as a daemon
#   modules          what to load, in order: 'stream', 'zonemesh', others of %FILES, or a path (default: these two)
#   conf             instead of all that: the whole text, or `conf_file` with a path
#   port, sync       numbers for the marks %%PORT%% and %%SYNC%% (free ones are taken otherwise)
#   vars             {name => text} for other marks %%NAME%%; %%PREFIX%% is always there
#   host             where its API listens (default 127.0.0.1)
#   net              code that runs other code in the network that this node is to live in (ZoneMesh::Net)
#   env              {NAME => text} of environment variables to start it with (nginx keeps those that `main` names in `env`)
#   name             for messages
# A mark that nothing fills is an error.

use strict;
use warnings;

use Config;
use Cwd ();
use File::Basename qw(dirname);
use File::Spec;
use File::Temp ();
use IO::Socket::INET;
use JSON::PP ();
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

use ZoneMesh::Http;

my $top = Cwd::abs_path(File::Spec->catdir(dirname(__FILE__), ('..') x 3));
my $count = 0;

# By its whole path: nginx starts its successor by the name that it was started with.
sub nginx {
    my $name = $ENV{TEST_NGINX_BINARY} || 'nginx';
    return Cwd::abs_path($name) if $name =~ m{/};
    return (grep { -x } map { "$_/$name" } split /:/, "$ENV{PATH}:/usr/sbin")[0] // $name;
}

# Modules of others that have a short name here.
my %FILES = (
    stream    => 'ngx_stream_module.so',
    js        => 'ngx_http_js_module.so',
    stream_js => 'ngx_stream_js_module.so',
    ndk       => 'ndk_http_module.so',
    lua       => 'ngx_http_lua_module.so',
);

sub module_file {
    my ($module) = @_;
    return $ENV{TEST_ZONEMESH_MODULE} || "$top/target/module/ngx_zonemesh_module.so" if $module eq 'zonemesh';
    return ($ENV{TEST_NGINX_MODULES} || '/usr/lib/nginx/modules') . "/$FILES{$module}" if $FILES{$module};
    return $module;
}

# The version of nginx, as nginx's own headers have it: 1_022_001 is 1.22.1.
sub nginx_version {
    my @parts = `@{[ nginx() ]} -v 2>&1` =~ m{nginx/(\d+)\.(\d+)\.(\d+)} or die nginx() . ' does not say its version';
    return $parts[0] * 1_000_000 + $parts[1] * 1000 + $parts[2];
}

sub new {
    my ($class, %given) = @_;
    my $prefix = File::Temp->newdir('zonemesh-test-XXXXXX', TMPDIR => 1, CLEANUP => 0);
    my $self   = bless { owner => $$, name => 'node' . ++$count, prefix => $prefix, pids => {}, %given }, $class;
    chmod 0755, "$prefix" or die "$prefix: $!";    # workers run as another user
    mkdir "$prefix/logs";
    mkdir "$prefix/tmp";
    $self->configure;
    return $self;
}

sub name   { return $_[0]{name} }
sub port   { return $_[0]{port} }
sub sync   { return $_[0]{sync} }
sub prefix { return "$_[0]{prefix}" }
sub pid    { return $_[0]{pid} }

# Writes the configuration anew, with some parts changed; takes effect with the next start or reload.
sub configure {
    my ($self, %given) = @_;
    %$self = (%$self, %given);
    my $text = $self->{conf};
    if (defined $self->{conf_file}) {
        open my $file, '<', $self->{conf_file} or die "$self->{conf_file}: $!";
        $text = do { local $/; <$file> };
    }
    $text //= $self->assemble;
    my %vars = (PORT => $self->{port}, SYNC => $self->{sync}, PREFIX => $self->prefix, %{ $self->{vars} // {} });
    $text =~ s{%%(\w+)%%}{ $vars{$1} // die "nothing fills the mark %%$1%% in the configuration of $self->{name}" }ge;
    $self->write_file('nginx.conf', $text);
    return $self;
}

# The usual frame around the given parts.
sub assemble {
    my ($self) = @_;
    my $text = join '', map { 'load_module ' . module_file($_) . ";\n" } @{ $self->{modules} // [qw(stream zonemesh)] };
    my $user = $self->{user} // 'nobody';
    if ($> == 0 && $user ne '') {
        my $group = getgrgid((getpwnam $user)[3]);
        $text .= "user $user $group;\n";
    }
    $text .= 'worker_processes ' . ($self->{workers} // 1) . ";\n";
    $text .= "error_log logs/error.log " . ($ENV{ZONEMESH_LOG} || 'info') . ";\npid logs/nginx.pid;\n" . ($self->{main} // '') . "\n";
    $text .= 'events { ' . ($self->{events} // 'worker_connections 512;') . " }\n";
    if (defined $self->{http}) {
        my $temp = join '', map { "    ${_}_temp_path tmp/$_;\n" } qw(client_body proxy fastcgi uwsgi scgi);
        $text .= "http {\n    access_log off;\n$temp$self->{http}\n}\n";
    }
    $text .= "stream {\n$self->{stream}\n}\n" if defined $self->{stream};
    return $text;
}

# A file in the prefix folder; gives its path.
sub write_file {
    my ($self, $name, $text) = @_;
    my $path = $self->prefix . "/$name";
    open my $file, '>:raw', $path or die "$path: $!";
    print {$file} $text;
    close $file or die "$path: $!";
    return $path;
}

# A folder in the prefix that workers can write to; gives its path.
sub worker_folder {
    my ($self, $name) = @_;
    my $path = $self->prefix . "/$name";
    mkdir $path or die "$path: $!";
    if ($> == 0) { chown((getpwnam 'nobody')[ 2, 3 ], $path) or die "$path: $!" }
    return $path;
}

# `nginx -t`: (worked or not, what it said). A crash counts as neither: it dies.
sub check {
    my ($self) = @_;
    my $pid = open my $out, '-|';
    die "fork: $!" unless defined $pid;
    if (!$pid) {
        open STDERR, '>&', \*STDOUT;
        exec $self->command('-t') or POSIX::_exit(127);
    }
    my $said = do { local $/; <$out> } // '';
    close $out;
    my $status = $?;
    die sprintf "nginx -t ended with status %#x, saying: %s", $status, $said if $status != 0 && $status != 1 << 8;
    return ($status == 0, $said);
}

sub in_net { my ($self, $code) = @_; return $self->{net} ? $self->{net}->($code) : $code->() }

sub command {
    my ($self, @more) = @_;
    my $prefix = $self->prefix;
    # With -t the messages go to the terminal anyway.
    return (nginx(), '-p', "$prefix/", '-c', "$prefix/nginx.conf", '-e', 'logs/error.log',
        $self->{daemon} ? () : ('-g', 'daemon off;'), @more);
}

# Starts it and waits until its workers are there; dies with the error log's end otherwise.
sub start {
    my ($self) = @_;
    die "$self->{name} runs already" if $self->{pid};
    adopt_orphans() if $self->{daemon};
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        die_with_parent();
        open STDIN,  '<',  '/dev/null';
        open STDOUT, '>>', $self->prefix . '/logs/stdout';
        open STDERR, '>>', $self->prefix . '/logs/stdout';
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
        %ENV = (%ENV, %{ $self->{env} // {} });
        $self->in_net(sub { exec $self->command or POSIX::_exit(127) });
    }
    $self->{pid} = $pid;
    my $deadline = time + 10;
    if ($self->{daemon}) {
        my $file = $self->prefix . '/logs/nginx.pid';
        waitpid $pid, 0;
        die "$self->{name} did not start, saying:\n" . slurp($self->prefix . '/logs/stdout') if $?;
        sleep 0.01 until slurp($file) =~ /^(\d+)\n/ || time > $deadline;
        ($self->{pid}) = slurp($file) =~ /^(\d+)\n/ or die "$self->{name} has written no $file";
    }
    my $wanted = $self->{workers} // 1;
    $wanted = 1 unless $wanted =~ /^\d+$/;
    until ($self->{single} ? $self->answers : $self->workers >= $wanted) {
        if ($self->ended) {
            my $said = $self->tail(20) . slurp($self->prefix . '/logs/stdout');
            die "$self->{name} did not start, saying:\n$said\n";
        }
        die "$self->{name} has no workers after 10 s, its log ends:\n" . $self->tail(20) if time > $deadline;
        sleep 0.01;
    }
    return $self;
}

# Linux: the kernel ends it if the test is killed in a way that runs no END.
sub die_with_parent {
    my %prctl = (x86_64 => 157, aarch64 => 167);
    my ($machine) = $Config{archname} =~ /^(x86_64|aarch64)/ or return;
    syscall $prctl{$machine}, 1, POSIX::SIGTERM();
    return;
}

# Linux: a daemon becomes a child of ours when what started it has ended, so that its end can be waited for.
sub adopt_orphans {
    my %prctl = (x86_64 => 157, aarch64 => 167);
    my ($machine) = $Config{archname} =~ /^(x86_64|aarch64)/ or die "no prctl known for $Config{archname}";
    syscall($prctl{$machine}, 36, 1, 0, 0, 0) == 0 or die "prctl: $!";
    return;
}

# Whether something takes connections on its port.
sub answers {
    my ($self) = @_;
    return IO::Socket::INET->new(PeerAddr => $self->{host} // '127.0.0.1', PeerPort => $self->{port}, Proto => 'tcp', Timeout => 1);
}

# Whether the master has ended (and is reaped).
sub ended {
    my ($self) = @_;
    return 1 unless $self->{pid};
    return 0 unless waitpid($self->{pid}, WNOHANG) == $self->{pid};
    $self->{status} = $?;
    delete $self->{pid};
    return 1;
}

# The processes that are children of the master, as {pid => title}. Zombies have no title and aren't among them.
sub children {
    my ($self) = @_;
    my %children;
    my $master = $self->{pid} or return {};
    opendir my $proc, '/proc' or die "/proc: $!";
    for my $pid (grep { /^\d+$/ } readdir $proc) {
        my $stat = slurp("/proc/$pid/stat");
        my ($parent) = $stat =~ /^\d+ \(.*\) \S (\d+)/s or next;
        next unless $parent == $master;
        (my $title = slurp("/proc/$pid/cmdline")) =~ tr/\0/ /;
        $title =~ s/\s+$//;
        $children{$pid} = $title if $title =~ /^nginx: /;
    }
    $self->{pids}{$_} = 1 for keys %children;
    return \%children;
}

# Workers that take connections, and those that are shutting down.
sub workers {
    my ($self) = @_;
    my $children = $self->children;
    my @workers  = sort { $a <=> $b } grep { $children->{$_} eq 'nginx: worker process' } keys %$children;
    return @workers;
}

sub old_workers {
    my ($self) = @_;
    my $children = $self->children;
    my @workers  = sort { $a <=> $b } grep { $children->{$_} =~ /worker process is shutting down/ } keys %$children;
    return @workers;
}

# The worker that runs the helper thread: the one with more than one thread.
sub agent_worker {
    my ($self) = @_;
    return (grep { threads($_) > 1 } $self->workers)[0];
}

sub threads { my @tasks = glob "/proc/$_[0]/task/*"; return scalar @tasks }

# Resident memory of a process, in KiB.
sub memory { my ($kib) = slurp("/proc/$_[1]/status") =~ /^VmRSS:\s+(\d+)/m; return $kib // 0 }

sub signal {
    my ($self, $signal) = @_;
    return $self->{pid} && kill $signal, $self->{pid};
}

# Reloads and waits until new workers have taken over (old ones may still be shutting down). Dies if it doesn't come true.
sub reload {
    my ($self, %parts) = @_;
    $self->configure(%parts) if %parts;
    my %old = map { $_ => 1 } $self->workers;
    my $wanted = $self->{workers} // 1;
    $wanted = 1 unless $wanted =~ /^\d+$/;
    $self->signal('HUP') or die "$self->{name} does not run";
    my $deadline = time + 10;
    while (1) {
        my @workers = $self->workers;
        last if @workers >= $wanted && !grep { $old{$_} } @workers;
        die "$self->{name}: no reload after 10 s, its log ends:\n" . $self->tail(20) if time > $deadline;
        sleep 0.01;
    }
    return $self;
}

# Signals the master and waits for its end: gives the seconds it took, or undef if it still runs.
sub end_by {
    my ($self, $signal, $seconds) = @_;
    my $began = time;
    $self->signal($signal) or die "$self->{name} does not run";
    until ($self->ended) {
        return if time > $began + $seconds;
        sleep 0.005;
    }
    return time - $began;
}

sub quit { return $_[0]->end_by('QUIT', $_[1] // 10) }
sub term { return $_[0]->end_by('TERM', $_[1] // 10) }

# kill -9 of the whole node at once, as when a machine loses its power; gives when all are gone.
sub crash {
    my ($self) = @_;
    my @all = ($self->{pid}, keys %{ $self->children });
    kill 'STOP', $all[0];    # or it would start new workers
    kill 'KILL', @all[1 .. $#all], $all[0];
    $self->gone(@all[1 .. $#all]);
    sleep 0.005 until $self->ended;
    return $self;
}

# kill -9 of one worker; waits until it is gone and another has taken its place.
sub kill_worker {
    my ($self, $pid) = @_;
    my %old = map { $_ => 1 } $self->workers;
    kill 'KILL', $pid or die "worker $pid: $!";
    my $deadline = time + 10;
    until (!-e "/proc/$pid" && grep { !$old{$_} } $self->workers) {
        die "$self->{name}: worker $pid was not replaced, its log ends:\n" . $self->tail(20) if time > $deadline;
        sleep 0.01;
    }
    return $self;
}

# Ends it gently if it runs, at last by force: whether it ended on its own. For the end of a test.
sub stop {
    my ($self) = @_;
    return 1 if $self->ended;
    $self->children;
    return 1 if defined $self->term(5);
    $self->kill_all;
    return 0;
}

sub kill_all {
    my ($self) = @_;
    return unless $self->{pid};
    $self->children;
    my $prefix = $self->prefix;
    my @workers = grep { slurp("/proc/$_/cmdline") =~ /^nginx: / } keys %{ $self->{pids} };
    kill 'KILL', $self->{pid}, @workers;
    waitpid $self->{pid}, 0;
    delete $self->{pid};
    $self->gone(@workers);
    return;
}

# Waits until these processes are gone (or zombies of a parent that isn't ours).
sub gone {
    my ($self, @pids) = @_;
    my $deadline = time + 5;
    for my $pid (@pids) {
        sleep 0.005 while slurp("/proc/$pid/cmdline") ne '' && time < $deadline;
    }
    return;
}

# Called at the end of the test: no process and no file stays.
sub destroy {
    my ($self) = @_;
    return unless $self->{owner} == $$;
    $self->kill_all unless $self->ended;
    $self->remove;
    return;
}

sub remove {
    my ($self) = @_;
    if ($ENV{ZONEMESH_KEEP}) { print STDERR "# $self->{name}: kept in ", $self->prefix, "\n" }
    else                     { require File::Path; File::Path::remove_tree($self->prefix) }
    return;
}

# The error log: all of it, its lines, those that match, its end.
sub log_text  { return slurp($_[0]->prefix . '/logs/error.log') }
sub log_lines { return split /\n/, $_[0]->log_text }

sub grep_log {
    my ($self, $pattern) = @_;
    return grep { /$pattern/ } $self->log_lines;
}

sub tail {
    my ($self, $n) = @_;
    my @lines = $self->log_lines;
    splice @lines, 0, @lines - $n if @lines > $n;
    return join '', map { "$_\n" } @lines;
}

# Waits for a line that matches; gives the lines that do. `after` skips that many that were there before.
sub wait_log {
    my ($self, $pattern, $seconds, $after) = @_;
    my $deadline = time + ($seconds // 5);
    while (1) {
        my @found = $self->grep_log($pattern);
        return @found if @found > ($after // 0) || time > $deadline;
        sleep 0.02;
    }
}

# Requests, as ZoneMesh::Http::request takes them.
sub request {
    my ($self, @rest) = @_;
    return $self->in_net(sub { ZoneMesh::Http->request($self->{port}, splice(@rest, 0, 2), host => $self->{host}, @rest) });
}

sub get     { my ($self, $target, %given) = @_; return $self->request('GET', $target, %given) }
sub delete  { my ($self, $target, %given) = @_; return $self->request('DELETE', $target, %given) }
sub post    { my ($self, $target, $body, %given) = @_; return $self->request('POST', $target, body => $body, %given) }
sub patch   { my ($self, $target, $body, %given) = @_; return $self->request('PATCH', $target, body => $body, %given) }

# Shorthands for http key-values over an API at /api; they give the status.
sub kv_url { return '/api/9/http/keyvals' . (defined $_[0] ? '/' . escape($_[0]) : '') }

sub add {
    my ($self, $zone, $key, $value) = @_;
    return $self->post(kv_url($zone), encode({ $key => $value }))->status;
}

sub change {
    my ($self, $zone, $key, $value) = @_;
    return $self->patch(kv_url($zone), encode({ $key => $value }))->status;
}

sub drop  { my ($self, $zone, $key) = @_; return $self->change($zone, $key, undef) }
sub clear { my ($self, $zone) = @_; return $self->delete(kv_url($zone))->status }

# A whole zone as {key => value}; or all of them as {zone => {...}}.
sub keyvals { my ($self, $zone) = @_; return $self->get(kv_url($zone))->json }

# /stream/zone_sync, decoded.
sub zone_sync { return $_[0]->get('/api/9/stream/zone_sync')->json }

# JSON of pairs; values are strings, whatever Perl thinks of them.
sub encode {
    my (%pairs) = %{ $_[0] };
    for (values %pairs) { $_ = "$_" if defined && !ref }
    return JSON::PP->new->utf8->canonical->encode(\%pairs);
}

sub escape {
    my ($text) = @_;
    utf8::encode($text) if utf8::is_utf8($text);
    $text =~ s/([^A-Za-z0-9_.~-])/sprintf '%%%02X', ord $1/ge;
    return $text;
}

sub slurp {
    my ($path) = @_;
    open my $file, '<:raw', $path or return '';
    local $/;
    return readline($file) // '';
}

1;
