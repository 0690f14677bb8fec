package ZoneMesh;

# The harness of zonemesh's tests: real nginx processes, real sockets, nothing but core Perl.
#
#     use FindBin; use lib "$FindBin::Bin/lib"; use ZoneMesh;
#
#     my $node = node(http => <<'CONF')->start;
#         keyval_zone zone=one:64k;
#         server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } }
#     CONF
#     is($node->post('/api/9/http/keyvals/one', '{"a":"b"}')->status, 201, 'a pair is added');
#     done_testing;
#
# It gives all of Test::More, and what @EXPORT names. Each node has a prefix folder of its own (ZoneMesh::Node); answers
# are ZoneMesh::Http objects. `done_testing` also stops the nodes and looks for crashes and alerts in their error logs.
#
# TEST_NGINX_BINARY, TEST_NGINX_MODULES, TEST_ZONEMESH_MODULE choose what is run. ZONEMESH_KEEP=1 keeps the folders,
# ZONEMESH_LOG=debug makes nginx tell more.

use strict;
use warnings;

use Errno qw(EADDRINUSE);
use Fcntl qw(:flock O_CREAT O_RDWR);
use File::Spec;
use IO::Select;
use IO::Socket::INET;
use Socket qw(SOMAXCONN);
use Test::More ();
use Time::HiRes qw(sleep time);

use ZoneMesh::Certs;
use ZoneMesh::Http;
use ZoneMesh::Node;

our @EXPORT = qw(
    node port config_check config_fails config_works
    wait_for eventually eventually_is allow_log done_testing
    authority tcp read_all closes_within json sleep time
    needs_modules needs_program
);

sub import {
    my $caller = caller;
    strict->import;
    warnings->import;
    no strict 'refs';    ## no critic: this is what an exporter does
    for my $name (@Test::More::EXPORT) {
        next if $name eq 'done_testing' or $name !~ /^\w+$/;
        *{"${caller}::$name"} = \&{"Test::More::$name"};
    }
    *{"${caller}::TODO"} = \${"${caller}::TODO"};
    *{"${caller}::$_"} = \&{"ZoneMesh::$_"} for @EXPORT;
    return;
}

my $owner = $$;
my @nodes;
my @allowed;
my $finished;

# A node, not yet started. See ZoneMesh::Node for what it takes.
sub node {
    my (%given) = @_;
    my $node = ZoneMesh::Node->new(port => port(), sync => port(), %given);
    push @nodes, $node;
    return $node;
}

# What `nginx -t` says to a configuration (the arguments of `node`): (worked or not, its output).
sub config_check {
    my (%given) = @_;
    my $node = ZoneMesh::Node->new(port => port(), sync => port(), %given);
    my ($ok, $said) = eval { $node->check };
    my $error = $@;
    $node->destroy;
    die $error if $error;
    return ($ok, $said);
}

# A configuration that must be refused, and what the message must say: one pattern, or several in a list, all of which one
# [emerg] line must match. A crash isn't a refusal.
sub config_fails {
    my ($conf, $patterns, $name) = @_;
    my ($ok, $said) = config_check(%$conf);
    my @match = grep { /\[emerg\]/ } split /\n/, $said;
    for my $pattern (ref $patterns eq 'ARRAY' ? @$patterns : $patterns) {
        @match = grep { /$pattern/ } @match;
    }
    my $good = !$ok && @match;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    return Test::More::ok($good, $name)
        || Test::More::diag(($ok ? 'it was accepted' : 'it was refused') . ", saying:\n$said");
}

# A configuration that must be accepted; returns what was said (warnings).
sub config_works {
    my ($conf, $name) = @_;
    my ($ok, $said) = config_check(%$conf);
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    Test::More::ok($ok, $name) or Test::More::diag("it was refused, saying:\n$said");
    return $said;
}

# Asks until the answer is true or the time is over; gives the last answer. Exceptions count as false.
sub wait_for {
    my ($condition, $seconds, $pause) = @_;
    $seconds //= 5;
    my $deadline = time + $seconds;
    while (1) {
        my $answer = eval { $condition->() };
        return $answer if $answer;
        return $answer if time > $deadline;
        sleep($pause // 0.01);
    }
}

# A test: the condition comes true in time.
sub eventually(&$;$) {
    my ($condition, $name, $seconds) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    return Test::More::ok(wait_for($condition, $seconds), $name);
}

# A test: what the code gives becomes equal to `expected` (any data) in time.
sub eventually_is(&$$;$) {
    my ($code, $expected, $name, $seconds) = @_;
    my $canon = sub { JSON::PP->new->canonical->allow_nonref->encode($_[0]) };
    my $want  = $canon->($expected);
    my $got;
    my $ok = wait_for(sub { $got = $code->(); $canon->($got) eq $want }, $seconds);
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    return Test::More::pass($name) if $ok;
    Test::More::diag("exception: $@") if $@;
    return Test::More::is_deeply($got, $expected, $name);
}

# A TCP port nobody listens on, ours until the test ends.
#
# Not from the range that outgoing connections get theirs from: there a node that dials a peer which isn't there could be
# connected to itself. A lock file each keeps tests that run side by side apart.
my @port_locks;

sub port {
    my $folder = File::Spec->catdir(File::Spec->tmpdir, "zonemesh-test-ports-$>");
    mkdir $folder, 0700;
    for (1 .. 500) {
        my $port = 10_240 + int rand 22_000;
        sysopen my $lock, "$folder/$port", O_CREAT | O_RDWR or die "cannot write $folder/$port: $!";
        next unless flock $lock, LOCK_EX | LOCK_NB;
        my $socket = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => $port, Proto => 'tcp', Listen => 1)
            or next;
        close $socket;
        push @port_locks, $lock;
        return $port;
    }
    die 'no free port found';
}

# Ends the test as skipped unless the nginx that is tested has these modules of others; they are packages of Debian's,
# made for Debian's nginx only.
sub needs_modules {
    my (@names) = @_;
    for my $file (map { ZoneMesh::Node::module_file($_) } @names) {
        Test::More::plan(skip_all => "no $file: it is for another nginx, or not installed") unless -e $file;
    }
    return;
}

# Ends the test as skipped unless there is such a program; gives its path.
sub needs_program {
    my ($name) = @_;
    for my $folder (File::Spec->path) {
        return "$folder/$name" if -x "$folder/$name";
    }
    Test::More::plan(skip_all => "no $name: the package of Debian's that has it isn't installed");
    return;
}

# A throw-away certificate authority.
sub authority { return ZoneMesh::Certs->new(@_) }

sub json { return ZoneMesh::Http::json_of($_[0]) }

# A raw TCP connection to a port on loopback.
sub tcp {
    my ($port) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Proto => 'tcp', Timeout => 5)
        or die "cannot connect to 127.0.0.1:$port: $!";
    binmode $socket;
    $socket->autoflush(1);
    return $socket;
}

# All that comes until the other side closes or the time is over: (bytes, closed or not).
sub read_all {
    my ($socket, $seconds) = @_;
    my $deadline = time + ($seconds // 5);
    my $select   = IO::Select->new($socket);
    my $bytes    = '';
    while ((my $left = $deadline - time) > 0) {
        next unless $select->can_read($left);
        my $n = sysread $socket, $bytes, 65_536, length $bytes;
        return ($bytes, 1) unless $n;    # the end, or reset
    }
    return ($bytes, 0);
}

# A test: the other side closes within the time; gives how long it took.
sub closes_within {
    my ($socket, $seconds, $name) = @_;
    my $began = time;
    my (undef, $closed) = read_all($socket, $seconds);
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    Test::More::ok($closed, $name) or Test::More::diag("still open after $seconds s");
    return time - $began;
}

# Lines in error logs that the final check would count as failures, but that this test brings about on purpose.
sub allow_log { push @allowed, @_; return }

# Stops all nodes, looks at their error logs, and ends the test.
sub done_testing {
    my $bad = 0;
    for my $node (@nodes) {
        my $clean = $node->stop;
        my @lines = grep {
            my $line = $_;
            $line =~ /panicked|exited on signal|another helper thread|\[(?:alert|emerg)\]|AddressSanitizer|free\(\)|corrupt/
                && !grep { $line =~ /$_/ } @allowed
        } $node->log_lines;
        next if $clean && !@lines;
        $bad++;
        Test::More::diag('node ' . $node->name . ' did not end in time when told to') unless $clean;
        Test::More::diag($node->name . ": $_") for @lines > 20 ? @lines[0 .. 19] : @lines;
    }
    Test::More::ok(!$bad, 'nodes end when told to; no crash and no alert in their error logs') if @nodes;
    $finished = 1;
    return Test::More::done_testing();
}

# Everything that was started ends with the test, however the test ends.
for my $signal (qw(INT TERM HUP)) {
    $SIG{$signal} = sub { exit 130 };    ## runs END
}
$SIG{PIPE} = 'IGNORE';

END {
    if ($$ == $owner) {
        my $status = $?;
        my $passing = $finished && Test::More->builder->is_passing;
        unless ($passing) {
            for my $node (@nodes) {
                my @lines = $node->log_lines;
                splice @lines, 0, @lines - 40 if @lines > 40;
                Test::More::diag('error log of ' . $node->name . " ends:\n  " . join "\n  ", @lines) if @lines;
            }
        }
        $_->destroy for @nodes;
        $? = $status;
    }
}

1;
