package ZoneMesh::Flood;

# An attacker: many connections to a port of zone_sync, from a process of its own with a limit of open files to match.
#
#     my $flood = ZoneMesh::Flood->new(port => $node->sync, kind => 'silent', count => 2_000);
#     $flood->status;    # {opened, open, closed, refused, sent, answered, longest}, as of now; `longest`: seconds that one stayed open
#     $flood->end;       # closes them all; so does the end of the test
#
# kind: silent     connects and says nothing
#       half       sends the beginning of a hello, and then nothing
#       drip       sends a hello, a byte each 0.5 s
#       handshake  begins a TLS handshake and leaves the server waiting for the rest of it
#       hello      says a valid hello as a node never heard of, stays for 0.1 s (stays: other seconds), and goes
# from_one: connections from one address, before the next has its turn (default: as many as an address may have ports for)
# rate: connections begun in a second (default 2,000); again: true: it goes on when `count` have been opened, in place of
# those that were closed. idle: true: it gets only the processor time that everybody else leaves, as one elsewhere takes none.

use strict;
use warnings;

use Cwd ();
use File::Basename qw(dirname);
use IO::Handle;
use JSON::PP ();
use POSIX ();
use Socket;
use Time::HiRes qw(sleep time);

use ZoneMesh::Wire;

# Connections from one address, as ports run out.
my $FROM_ONE = 4_000;
my $STAYS = 0.1;

# The most files that a process of this user may have open.
sub most_files { chomp(my $most = qx(sh -c 'ulimit -Hn')); return $most =~ /^\d+$/ ? $most : 1_000_000 }

sub new {
    my ($class, %given) = @_;
    my $files = $given{count} + 100;
    my $lib   = Cwd::abs_path(dirname(__FILE__) . '/..');
    pipe my $orders_out, my $orders   or die "pipe: $!";
    pipe my $answers,    my $answers_in or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDIN,  '<&', $orders_out or POSIX::_exit(126);
        open STDOUT, '>&', $answers_in or POSIX::_exit(126);
        close $orders;
        my $code = 'ZoneMesh::Flood::attack(@ARGV)';
        exec 'sh', '-c', 'ulimit -n "$1" 2>/dev/null; shift; exec "$@"', 'sh', $files, ($given{idle} ? qw(chrt --idle 0) : ()), $^X, "-I$lib", '-MZoneMesh::Flood', '-e', $code,
            map { $_ => $given{$_} } grep { defined $given{$_} } qw(port kind count rate again stays from_one)
            or POSIX::_exit(127);
    }
    close $orders_out;
    close $answers_in;
    $orders->autoflush(1);
    return bless { pid => $pid, owner => $$, orders => $orders, answers => $answers }, $class;
}

sub status {
    my ($self) = @_;
    print { $self->{orders} } "status\n";
    my $answer = readline $self->{answers};
    die "the attacker has ended\n" unless defined $answer;
    return JSON::PP::decode_json($answer);
}

sub end {
    my ($self) = @_;
    return if !$self->{pid} || $$ != $self->{owner};
    close $self->{orders};
    waitpid delete $self->{pid}, 0;
    return;
}

sub DESTROY { local ($?, $@, $!); return $_[0]->end }

# A ClientHello of TLS 1.2: to go on, the server needs an answer.
sub client_hello {
    my $extension = sub { pack('n n/a*', @_) };
    my $extensions = $extension->(10, pack 'n n n', 4, 29, 23) . $extension->(11, "\1\0")
        . $extension->(13, pack 'n n*', 16, 0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601);
    my $ciphers = pack 'n*', 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8;
    my $body = "\3\3" . ('r' x 32) . "\0" . pack('n/a*', $ciphers) . "\1\0" . pack('n/a*', $extensions);
    my $message = "\1" . substr(pack('N', length $body), 1) . $body;
    return "\x16\3\1" . pack 'n/a*', $message;
}

# The attacker itself: says how it stands for each line that it is sent, and ends with its input.
sub attack {
    my (%given) = @_;
    my ($port, $kind, $count, $rate) = (@given{qw(port kind count)}, $given{rate} // 2_000);
    my ($stays, $from_one) = ($given{stays} // $STAYS, $given{from_one} // $FROM_ONE);
    $SIG{PIPE} = 'IGNORE';
    STDOUT->autoflush(1);
    my $hello = $kind eq 'handshake' ? client_hello() : hello();
    my %speech = (half => substr($hello, 0, 20), handshake => $hello);
    my %done = map { $_ => 0 } qw(opened closed refused sent answered longest);
    my (%open, $wanted);
    my ($began, $looked) = (time, 0);
    while (1) {
        my $now = time;
        my $due = ($now - $began) * $rate;
        $due = $count if !$given{again} && $due > $count;
        my $at_once = 50;
        while ($done{opened} + $done{refused} < $due && keys %open < $count && $at_once-- > 0) {
            my $number = $done{opened} + $done{refused};
            my $socket = from_loopback(2 + int($number / $from_one), $port);
            if (!$socket) { $done{refused}++; next }
            $done{opened}++;
            my $says = $kind eq 'hello' ? hello() : $speech{$kind} // '';
            $done{sent}++ if length $says && syswrite $socket, $says;
            $open{ fileno $socket } = { socket => $socket, since => $now, said => 0 };
        }
        # Who is behind a full queue isn't caught up with: the rate is what was asked for, at most.
        $began = $now - ($done{opened} + $done{refused}) / $rate if $due - $done{opened} - $done{refused} > $rate;
        my $in = '';
        vec($in, 0, 1) = 1;
        my $look = $now - $looked >= 0.05;
        if ($look) {
            $looked = $now;
            vec($in, $_, 1) = 1 for keys %open;
        }
        my $ready = select $in, undef, undef, 0.01;
        next if $ready < 0;
        if (vec $in, 0, 1) {
            last unless sysread STDIN, my $order, 100;
            print JSON::PP::encode_json({ %done, open => scalar keys %open }), "\n";
        }
        next unless $look;
        $now = time;
        for my $fd (keys %open) {
            my $one = $open{$fd};
            my $said    = vec($in, $fd, 1) ? sysread $one->{socket}, my $bytes, 65_536 : undef;
            my $is_over = vec($in, $fd, 1) && !$said;
            $done{answered}++ if $said && !$one->{answered}++;
            if ($is_over) {
                $done{closed}++;
                $done{longest} = $now - $one->{since} if $now - $one->{since} > $done{longest};
            }
            elsif ($kind eq 'hello' && $now - $one->{since} > $stays) { $is_over = 1 }
            elsif ($kind eq 'drip' && $one->{said} < length $hello && $now - $one->{since} > 0.5 * $one->{said}) {
                $done{sent} += syswrite($one->{socket}, substr $hello, $one->{said}++, 1) // 0;
            }
            delete $open{$fd} if $is_over;
        }
    }
    return;
}

# A connection from 127.0.0.0 + `from`.
sub from_loopback {
    my ($from, $port) = @_;
    socket my $socket, PF_INET, SOCK_STREAM, 0 or return;
    bind $socket, pack_sockaddr_in(0, pack "N", 0x7f000000 + $from) or return;
    $socket->blocking(0);
    connect($socket, pack_sockaddr_in($port, INADDR_LOOPBACK)) || $!{EINPROGRESS} or return;
    return $socket;
}

1;
