package ZoneMesh::Relay;

# A process that carries TCP connections between nodes, so that a test can cut them.
#
#     my $relay = ZoneMesh::Relay->new($from_port => $to_port, ...)->start;
#     $relay->freeze;   # as a network that swallows everything: connections stay, nothing arrives
#     $relay->thaw;
#     $relay->stop;     # connections are reset, new ones refused
#     $relay->start;
#
# `delay => seconds` as first pair: all bytes arrive so much later. `$relay->{rate} = n`, before it starts: so many bytes a second
# go each way, and little of what is sent faster finds room on the way.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(SOL_SOCKET SO_LINGER SO_RCVBUF);
use Time::HiRes qw(sleep time);

my @all;

sub new {
    my ($class, %ports) = @_;
    my $delay = delete $ports{delay} // 0;
    my $self  = bless { ports => \%ports, delay => $delay, owner => $$ }, $class;
    push @all, $self;
    return $self;
}

sub start {
    my ($self) = @_;
    # Bound here, so that connections are taken from now on.
    my %listen = map {
        $_ => IO::Socket::INET->new(
            LocalAddr => '127.0.0.1', LocalPort => $_, Proto => 'tcp', Listen => 64, ReuseAddr => 1
        ) // die "relay: port $_: $!"
    } keys %{ $self->{ports} };
    if ($self->{rate}) { setsockopt $_, SOL_SOCKET, SO_RCVBUF, 16_384 for values %listen }
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
        $SIG{PIPE} = 'IGNORE';
        ZoneMesh::Node::die_with_parent();
        eval { $self->carry(\%listen) };
        print STDERR "# relay: $@" if $@;
        POSIX::_exit(1);
    }
    $self->{pid} = $pid;
    return $self;
}

sub freeze { kill 'STOP', $_[0]{pid}; return }
sub thaw   { kill 'CONT', $_[0]{pid}; return }

sub stop {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    kill 'KILL', $pid;
    waitpid $pid, 0;
    return;
}

END { for my $relay (@all) { local $?; $relay->stop if $relay->{owner} == $$ } }

# Each connection is a pair of sockets; what one reads waits in the other's queue: [when, bytes].
sub carry {
    my ($self, $listen) = @_;
    my %target = map { fileno($listen->{$_}) => $self->{ports}{$_} } keys %$listen;
    my $reading = IO::Select->new(values %$listen);
    my (%other, %queue, %rests);
    my $drop = sub {
        my ($socket) = @_;
        my $peer = delete $other{ fileno $socket };
        for my $one (grep { defined } $socket, $peer) {
            $reading->remove($one);
            delete $_->{ fileno $one } for \%other, \%queue, \%rests;
            setsockopt $one, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0);
            close $one;
        }
    };
    while (1) {
        my $now     = time;
        # What was read from too fast is read from again when its time has come.
        for my $id (grep { $rests{$_}[1] <= $now } keys %rests) { $reading->add((delete $rests{$id})->[0]) }
        my @waiting = grep { @{ $queue{ fileno $_ } // [] } } values %other;
        my @due     = grep { $queue{ fileno $_ }[0][0] <= $now } @waiting;
        my ($readable, $writable) = IO::Select->select($reading, IO::Select->new(@due), undef, @waiting || %rests ? 0.002 : undef);
        for my $socket (@{ $writable // [] }) {
            my $first = ($queue{ fileno $socket // -1 } // next)->[0] // next;
            my $n = syswrite $socket, $first->[1];
            if (!defined $n) { $drop->($socket) unless $!{EAGAIN}; next }
            substr $first->[1], 0, $n, '';
            shift @{ $queue{ fileno $socket } } unless length $first->[1];
        }
        for my $socket (@{ $readable // [] }) {
            my $id = fileno $socket // next;
            if (my $port = $target{$id}) {
                my $in  = $socket->accept or next;
                my $out = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Proto => 'tcp');
                if (!$out) { setsockopt $in, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0); close $in; next }
                $_->blocking(0) for $in, $out;
                $other{ fileno $in } = $out;
                $other{ fileno $out } = $in;
                $reading->add($in, $out);
                next;
            }
            my $peer = $other{$id} or next;
            my $n = sysread $socket, my $bytes, $self->{rate} ? 4_096 : 65_536;
            if ($n) {
                push @{ $queue{ fileno $peer } }, [ time + $self->{delay}, $bytes ];
                if ($self->{rate}) {
                    $reading->remove($socket);
                    $rests{$id} = [ $socket, time + $n / $self->{rate} ];
                }
            }
            elsif (defined $n || !$!{EAGAIN}) {
                # what is under way is delivered as far as it goes at once
                syswrite $peer, $_->[1] for @{ $queue{ fileno $peer } // [] };
                $drop->($socket);
            }
        }
    }
    return;
}

1;
