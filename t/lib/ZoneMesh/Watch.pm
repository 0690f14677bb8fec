package ZoneMesh::Watch;

# A client of server-sent events: what it was sent so far, and how far that brought it.
#
#     my $watch = ZoneMesh::Watch->new($node, 'one', prefix => 'user:');
#     is_deeply($watch->wait_for(2), ['set user:a', 'delete user:a'], 'two changes');
#     my $again = ZoneMesh::Watch->new($node, 'one', after => $watch);
#
# Options of new: prefix, position (the query's), after (another one of these: Last-Event-ID is its id), small (true: the
# socket's buffer is small, for clients that don't read), headers ({name => value}).

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use Socket ();
use Time::HiRes qw(time);

use ZoneMesh::Node;

sub new {
    my ($class, $node, $zone, %given) = @_;
    my $self = bless { in => '', text => '', events => [], node => $node }, $class;
    my $socket = IO::Socket::INET->new(Proto => 'tcp') or die "socket: $!";
    setsockopt $socket, Socket::SOL_SOCKET(), Socket::SO_RCVBUF(), 16_384 if $given{small};
    connect $socket, Socket::pack_sockaddr_in($node->port, Socket::inet_aton('127.0.0.1'))
        or die "cannot connect to port @{[ $node->port ]}: $!";
    binmode $socket;
    my @query = map { "$_=" . ZoneMesh::Node::escape($given{$_}) } grep { defined $given{$_} } qw(prefix position);
    my $target = '/api/9/zonemesh/keyvals/' . ZoneMesh::Node::escape($zone) . '/watch' . (@query ? '?' . join '&', @query : '');
    my %headers = (Host => 'localhost', %{ $given{headers} // {} });
    $headers{'Last-Event-ID'} = $given{after}->id if $given{after};
    my $head = "GET $target HTTP/1.1\r\n" . join '', map { "$_: $headers{$_}\r\n" } sort keys %headers;
    syswrite $socket, "$head\r\n" or die "cannot write: $!";
    $self->{socket} = $socket;
    return $self if $given{small};
    my $deadline = time + 5;
    until (defined $self->{status} && (defined $self->{id} || $self->{closed} || $given{position} || $given{after})) {
        die "no answer to $target in time, got: $self->{in}$self->{text}\n" if time > $deadline;
        $self->read(0.1);
    }
    return $self;
}

# Reads what comes within these seconds; returns after the first that does.
sub read {
    my ($self, $seconds) = @_;
    return 0 if $self->{closed} || !IO::Select->new($self->{socket})->can_read($seconds // 0);
    my $n = sysread $self->{socket}, $self->{in}, 65_536, length $self->{in};
    $self->{closed} = 1 unless $n;
    $self->{bytes} += $n // 0;
    unless (defined $self->{status}) {
        $self->{in} =~ s/^HTTP\/1\.1 (\d+)[^\r]*\r\n(.*?)\r\n\r\n//s or return 1;
        $self->{status}  = $1;
        $self->{headers} = { map { /^([^:]+):\s*(.*)$/ ? (lc $1 => $2) : () } split /\r\n/, $2 };
    }
    while ($self->{in} =~ /^([0-9a-fA-F]+)\r\n/) {
        my ($head, $length) = (length $&, hex $1);
        last if length $self->{in} < $head + $length + 2;
        $self->{text} .= substr $self->{in}, $head, $length;
        $self->{in} = substr $self->{in}, $head + $length + 2;
        $self->{ended} = 1 unless $length;
    }
    while ($self->{text} =~ s/^(.*?\n)\n//s) { $self->block($1) }
    return 1;
}

sub block {
    my ($self, $block) = @_;
    $self->{comments}++ if $block =~ /^:/m;
    $self->{id} = $1 if $block =~ /^id: (.*)$/m;
    my ($name) = $block =~ /^event: (.*)$/m or return;
    my ($data) = $block =~ /^data: (.*)$/m or die "an event without data: $block";
    push @{ $self->{events} }, { name => $name, data => JSON::PP->new->utf8->decode($data) };
    return;
}

# The events that have come and weren't taken yet, after there are so many or the time is over.
sub take {
    my ($self, $count, $seconds) = @_;
    my $deadline = time + ($seconds // 5);
    while (@{ $self->{events} } < $count && !$self->{closed} && (my $left = $deadline - time) > 0) { $self->read($left) }
    return splice @{ $self->{events} };
}

# The same in short: name and key of each.
sub wait_for {
    my ($self, $count, $seconds) = @_;
    return [ map { brief($_) } $self->take($count, $seconds) ];
}

sub brief {
    my ($event) = @_;
    my $key = $event->{data}{key};
    return join ' ', $event->{name}, defined $key ? $key : ();
}

# Reads for some time whatever comes.
sub linger {
    my ($self, $seconds) = @_;
    my $deadline = time + $seconds;
    while (!$self->{closed} && (my $left = $deadline - time) > 0) { $self->read($left) }
    return $self;
}

# Waits for an id that covers what was sent until now; gives it.
sub settle {
    my ($self) = @_;
    my $deadline = time + 5;
    while (1) {
        my $before = $self->{id} // '';
        $self->read(0.1);
        return $self->{id} if $before eq ($self->{id} // '') && $self->{text} eq '';
        die 'no rest' if time > $deadline;
    }
}

sub id      { return $_[0]{id} }
sub status  { return $_[0]{status} }
sub header  { return $_[0]{headers}{ $_[1] } }
sub closed  { return $_[0]{closed} }
sub ended   { return $_[0]{ended} }
sub bytes   { return $_[0]{bytes} // 0 }
sub comments { return $_[0]{comments} // 0 }

# Goes away.
sub close {
    my ($self) = @_;
    CORE::close $self->{socket};
    $self->{closed} = 1;
    return;
}

1;
