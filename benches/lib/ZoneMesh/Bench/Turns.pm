package ZoneMesh::Bench::Turns;

# `scripts/bench turns`: how long one turn of a worker's event loop takes, in processor time of its thread, while the API
# and the cluster work on a zone of a million records. turns.c, preloaded into nginx, takes the time between two epoll_wait.

use strict;
use warnings;

use Time::HiRes qw(sleep time);

use ZoneMesh::Bench::Report;
use ZoneMesh::Certs;
use ZoneMesh::Node;

my $TARGET_MS = 5;
# Words of a slot in the file of figures, and their places: as in turns.c.
my ($SLOTS, $WORDS) = (64, 8);
my ($LONGEST, $COUNT, $BEYOND, $SUM) = (1 .. 4);

sub run {
    my (%given) = @_;
    my $records = $given{quick} ? 100_000 : 1_000_000;
    my $began   = time;
    my $load    = busy();
    my $bench   = ZoneMesh::Bench::Turns->new($records);
    my @rows    = eval { $bench->scenarios };
    my $failed  = $@;
    $bench->end;
    die $failed if $failed;
    my $machine = circumstances(load => $load, versions => revision(), command => $given{command}, began => $began);
    my $text = page($records, \@rows, $machine);
    print $text;
    publish(turns => 'Turns of the event loop', $text) unless $given{dry};
    return;
}

sub page {
    my ($records, $rows, $machine) = @_;
    my $out = "The processor time that a worker's thread used between two `epoll_wait`: for so\n"
        . "long others waited. One zone of $records records of 16 + 16 bytes, with `sync` and `state`, in one worker; other nodes over\n"
        . "mutual TLS. To reach: no turn beyond $TARGET_MS ms.\n\n" . $machine;
    $out .= "\n" . row('what', 'seconds', 'turns', 'mean, ms', 'longest, ms', "beyond $TARGET_MS ms") . row(('---') x 6);
    for my $one (@$rows) {
        my ($what, $seconds, $turn) = @$one;
        my $mean = $turn->{count} ? $turn->{sum} / $turn->{count} : 0;
        $out .= row($what, sprintf('%.1f', $seconds), $turn->{count}, map({ sprintf '%.2f', $_ / 1e6 } $mean, $turn->{longest}), $turn->{beyond});
    }
    return $out;
}

sub new {
    my ($class, $records) = @_;
    my $self = bless { records => $records, nodes => [] }, $class;
    $self->{folder} = File::Temp->newdir('zonemesh-turns-XXXXXX', TMPDIR => 1);
    chmod 0755, "$self->{folder}";
    my $shim = shim("$self->{folder}");
    my $ca = $self->{ca} = ZoneMesh::Certs->new('bench');
    my @ports = map { free_port() } 1 .. 4;
    for my $n (1, 2) {
        my $node = ZoneMesh::Node->new(name => "node$n", port => $ports[ $n - 1 ], sync => $ports[ $n + 1 ]);
        my ($certificate, $key) = $ca->issue("node$n", ip => ['127.0.0.1']);
        my $trust  = $ca->file;
        my $folder = $node->worker_folder('state');
        $node->configure(
            stream => "server {
                listen 127.0.0.1:%%SYNC%% ssl;
                ssl_certificate $certificate; ssl_certificate_key $key; ssl_client_certificate $trust; ssl_verify_client on;
                zone_sync;
                zone_sync_server 127.0.0.1:$ports[2]; zone_sync_server 127.0.0.1:$ports[3];
                zone_sync_ssl on; zone_sync_ssl_verify on; zone_sync_ssl_trusted_certificate $trust;
                zone_sync_ssl_certificate $certificate; zone_sync_ssl_certificate_key $key;
            }",
            http => "
                keyval_zone zone=one:256m timeout=1h sync state=$folder/one.json;
                keyval_zone zone=large:32m;
                client_max_body_size 1g;
                gzip_types application/json;
                gzip_proxied any;
                server {
                    listen 127.0.0.1:%%PORT%%;
                    location /api  { api write=on; }
                    location /gzip { api; gzip on; }
                    location /kv/  { keyval_rest zone=large; }
                }",
        );
        push @{ $self->{nodes} }, $node;
        $node->{start} = sub { measured($node, $shim, "$self->{folder}/figures$n") };
    }
    # Lines to import, and the same pairs as one object.
    my @pairs = map { sprintf '"%skey%012d":"val%013d"', $_ % 2 ? 'o' : 'e', $_, $_ } 1 .. $records;
    write_file("$self->{folder}/lines", join '', map { "{$_}\n" } @pairs);
    write_file("$self->{folder}/value", join '', map { chr } (0 .. 255) x 4096);
    write_file("$self->{folder}/object", '{' . join(',', @pairs) . '}');
    return $self;
}

# [what, seconds, figures] of each.
sub scenarios {
    my ($self) = @_;
    my ($one, $two) = @{ $self->{nodes} };
    my ($folder, @rows) = ($self->{folder});
    my $own    = '/api/9/zonemesh/keyvals/one';
    my $listed = '/api/9/http/keyvals/one';
    my $measure = sub {
        my ($what, $code, @nodes) = @_;
        print STDERR "bench: $what\n";
        reset_figures($_) for @nodes;
        my $began = time;
        $code->();
        my $took = time - $began;
        sleep 0.2;    # the turn that did the last of it is over
        push @rows, [ $what . (@nodes > 1 ? ', ' . $_->name : ''), $took, figures($_) ] for @nodes;
    };
    my $filled = sub { $self->wait_for($_[0], $self->{records}) };
    $one->{start}->();
    sleep 1;
    $measure->('nothing to do', sub { sleep 3 }, $one);
    $measure->('import of lines', sub { $one->curl(200, $own, '-T', "$folder/lines", '-X', 'POST') }, $one);
    $measure->('a state file is written', sub { $self->wait_for_state($one) }, $one);
    $measure->('listing', sub { $one->curl(200, $listed) }, $one);
    $measure->('listing, gzip', sub { $one->curl(200, $listed =~ s/api/gzip/r, '--compressed') }, $one);
    $measure->('listing with ?meta=1', sub { $one->curl(200, "$own?meta=1") }, $one);
    $measure->('export of lines', sub { $one->curl(200, "$own?format=ndjson&meta=1") }, $one);
    $measure->('a page by prefix of few', sub { $one->curl(200, "$own?prefix=ekey000000000002") }, $one);
    $measure->('eight listings at once', sub { $one->curls(8, 200, $listed) }, $one);
    $measure->('eight listings with gzip at once', sub { $one->curls(8, 200, $listed =~ s/api/gzip/r, '--compressed') }, $one);
    $measure->('all to a new watcher', sub { $self->watch($one) }, $one);
    $measure->('eight values of 1 MiB by keyval_rest', sub { $one->curl(201, "/kv/v$_", '-T', "$folder/value") for 1 .. 8 }, $one);
    $measure->('listing of these', sub { $one->curl(200, $listed =~ s/one$/large/r) }, $one);
    $measure->('listing of these, gzip', sub { $one->curl(200, $listed =~ s/one$/large/r =~ s/api/gzip/r, '--compressed') }, $one);
    $measure->('export of these', sub { $one->curl(200, "$own?format=ndjson" =~ s/one\?/large?/r) }, $one);
    $measure->('figures', sub { $one->curl(200, "/api/9/$_") for qw(slabs zonemesh/metrics zonemesh/zones/one stream/zone_sync) }, $one);
    $measure->('a node joins', sub { $two->{start}->(); $filled->($two) }, $one, $two);
    $measure->('PUT of all pairs', sub { $one->curl(200, $own, '-T', "$folder/object"); $self->wait_for_sync }, $one, $two);
    $measure->('delete by prefix of half', sub { $one->curl(200, "$own?prefix=okey", '-X', 'DELETE'); $self->wait_for($two, $self->{records} / 2) }, $one, $two);
    $measure->('the zone is emptied', sub { $one->curl(204, $listed, '-X', 'DELETE'); $self->wait_for($two, 0) }, $one, $two);
    $measure->('POST of all pairs', sub { $one->curl(201, $listed, '-T', "$folder/object", '-X', 'POST'); $filled->($two) }, $one, $two);
    $measure->('a body of as many bytes that is not JSON', sub { $one->curl(415, $own, '-T', "$folder/lines") }, $one);
    return @rows;
}

sub wait_for {
    my ($self, $node, $records) = @_;
    my $deadline = time + 120;
    until ($node->get('/api/9/zonemesh/zones/one')->json->{records} == $records) {
        die $node->name . " has not come to $records records\n" if time > $deadline;
        sleep 0.05;
    }
    return;
}

sub wait_for_sync {
    my ($self) = @_;
    my $deadline = time + 120;
    sleep 0.05 while $self->{nodes}[0]->zone_sync->{zones}{one}{records_pending} && time < $deadline;
    return;
}

sub wait_for_state {
    my ($self, $node) = @_;
    my $deadline = time + 60;
    while ($node->get('/api/9/zonemesh/zones/one')->json->{state}{pending}) {
        die "the state file was not written\n" if time > $deadline;
        sleep 0.05;
    }
    return;
}

# Reads until a position was told, which comes when all is.
sub watch {
    my ($self, $node) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $node->port) or die "connect: $!\n";
    print {$socket} "GET /api/9/zonemesh/keyvals/one/watch?position=0 HTTP/1.0\r\n\r\n";
    my ($end, $deadline) = ('', time + 60);
    until ($end =~ /^id: /m) {
        my $n = sysread $socket, my $piece, 1 << 20;
        die "the watcher was told no position\n" if !$n || time > $deadline;
        $end = substr($end, -100) . $piece;
    }
    return;
}

sub ZoneMesh::Node::curl {
    my ($node, $status, $target, @options) = @_;
    my @command = ('curl', qw(-sS -o /dev/null -m 120 -w %{http_code}), @options, 'http://127.0.0.1:' . $node->port . $target);
    open my $out, '-|', @command or die "curl: $!\n";
    my $said = readline($out) // '';
    close $out;
    die "@command: $said, not $status\n" if $said ne $status;
    return;
}

sub ZoneMesh::Node::curls {
    my ($node, $count, @request) = @_;
    my @pids;
    for (1 .. $count) {
        my $pid = fork // die "fork: $!\n";
        if (!$pid) { my $good = eval { $node->curl(@request); 1 }; print STDERR $@ if !$good; POSIX::_exit(!$good) }
        push @pids, $pid;
    }
    my $failed = grep { waitpid $_, 0; $? } @pids;
    die "$failed of $count requests failed\n" if $failed;
    return;
}

# What is preloaded, made in a folder.
sub shim {
    my ($folder) = @_;
    my $shim = "$folder/turns.so";
    my @compile = (qw(gcc -O2 -Wall -Wextra -shared -fPIC -o), $shim, 'benches/turns/turns.c', '-ldl');
    system(@compile) == 0 or die "@compile failed\n";
    return $shim;
}

# Starts a node whose turns are measured.
sub measured {
    my ($node, $shim, $figures) = @_;
    $node->{figures} = $figures;
    write_file($figures, "\0" x (8 * $WORDS * $SLOTS));
    local @ENV{qw(LD_PRELOAD ZONEMESH_TURNS)} = ($shim, $figures);
    return $node->start;
}

# Figures of the worker: its slot is that of its process.
sub figures {
    my ($node) = @_;
    my ($worker) = $node->workers;
    my @words = unpack 'Q*', slurp($node->{figures});
    for my $slot (map { [ @words[ $_ * $WORDS .. $_ * $WORDS + $WORDS - 1 ] ] } 0 .. $SLOTS - 1) {
        return { longest => $slot->[$LONGEST], count => $slot->[$COUNT], beyond => $slot->[$BEYOND], sum => $slot->[$SUM] } if $slot->[0] == $worker;
    }
    die "no figures of worker $worker\n";
}

# Sets all but the numbers of the processes to zero.
sub reset_figures {
    my ($node) = @_;
    open my $file, '+<:raw', $node->{figures} or die "$node->{figures}: $!\n";
    for my $slot (0 .. $SLOTS - 1) {
        seek $file, 8 * ($slot * $WORDS + 1), 0;
        print {$file} "\0" x (8 * ($WORDS - 1));
    }
    close $file or die "$node->{figures}: $!\n";
    return;
}

sub end {
    my ($self) = @_;
    for my $node (@{ $self->{nodes} }) {
        $node->stop;
        $node->destroy;
    }
    return;
}

1;
