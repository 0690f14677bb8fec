package ZoneMesh::Http;

# One HTTP request over its own connection, sent exactly as told, and its answer.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use Time::HiRes qw(time);

# request(port, method, target, headers => {name => value}, body => bytes, timeout => seconds, chunked => pieces)
# The host is 127.0.0.1 unless `host` says another. `headers` may also be a list of names and values; Host and Connection are added unless given. Dies without an answer.
sub request {
    my ($class, $port, $method, $target, %given) = @_;
    my @headers = ref $given{headers} eq 'HASH' ? %{ $given{headers} } : @{ $given{headers} // [] };
    my %has;
    my $head = "$method $target HTTP/1.1\r\n";
    while (my ($name, $value) = splice @headers, 0, 2) {
        $has{ lc $name } = 1;
        $head .= "$name: $value\r\n";
    }
    $head .= "Host: localhost\r\n"    unless $has{host};
    $head .= "Connection: close\r\n"  unless $has{connection};
    my $body = $given{body};
    if ($given{chunked}) {
        $head .= "Transfer-Encoding: chunked\r\n";
        $body = join '', map { sprintf "%x\r\n%s\r\n", length, $_ } grep { length } @{ $given{chunked} }, '';
        $body .= "0\r\n\r\n";
    }
    elsif (defined $body && !$has{'content-length'}) {
        $head .= 'Content-Length: ' . length($body) . "\r\n";
    }

    my $deadline = time + ($given{timeout} // 10);
    my $socket = IO::Socket::INET->new(PeerAddr => $given{host} // '127.0.0.1', PeerPort => $port, Proto => 'tcp', Timeout => 5)
        or die "$method $target: cannot connect to port $port: $!\n";
    binmode $socket;
    my $out = "$head\r\n" . ($body // '');
    my $in  = '';
    my $answer;
    # Reads while it sends: a server that refuses a large body answers before it has read all.
    $socket->blocking(0);
    until ($answer = $class->parse($in, $method, 0)) {
        my $left = $deadline - time;
        die "$method $target: no whole answer in time, got: $in\n" if $left <= 0;
        my ($readable, $writable) =
            IO::Select->select(IO::Select->new($socket), length $out ? IO::Select->new($socket) : undef, undef, $left);
        if ($readable && @$readable) {
            my $n = sysread $socket, $in, 65_536, length $in;
            if (defined $n && $n == 0) {
                $answer = $class->parse($in, $method, 1) or die "$method $target: connection closed, got: '$in'\n";
                last;
            }
            die "$method $target: $!\n" if !defined $n && !$!{EAGAIN} && !$!{EINTR};
        }
        if ($writable && @$writable) {
            my $n = syswrite $socket, $out, 65_536;
            if   (defined $n) { substr $out, 0, $n, '' }
            else              { $out = '' unless $!{EAGAIN} || $!{EINTR} }
        }
    }
    close $socket;
    return $answer;
}

# The answer in these bytes, if it is whole.
sub parse {
    my ($class, $in, $method, $ended) = @_;
    my $end = index $in, "\r\n\r\n";
    return if $end < 0;
    my ($first, @lines) = split /\r\n/, substr $in, 0, $end;
    my ($status) = $first =~ m{^HTTP/1\.[01] (\d{3})} or die "not an HTTP answer: $first\n";
    return $class->parse(substr($in, $end + 4), $method, $ended) if $status == 100;
    my %headers;
    for (@lines) {
        my ($name, $value) = /^([^:]+):\s*(.*?)\s*$/ or next;
        $name = lc $name;
        $headers{$name} = exists $headers{$name} ? "$headers{$name}, $value" : $value;
    }
    my $rest = substr $in, $end + 4;
    my $body;
    if ($method eq 'HEAD' || $status == 204 || $status == 304) {
        return unless $ended;    # anything that follows would be a mistake worth seeing
        $body = $rest;
    }
    elsif (($headers{'transfer-encoding'} // '') eq 'chunked') {
        $body = '';
        while (1) {
            $rest =~ s/^([0-9a-fA-F]+)[^\r\n]*\r\n// or return;
            my $n = hex $1;
            return if length $rest < $n + 2;
            last unless $n;
            $body .= substr $rest, 0, $n;
            $rest = substr $rest, $n + 2;
        }
    }
    elsif (defined $headers{'content-length'}) {
        return if length $rest < $headers{'content-length'};
        $body = substr $rest, 0, $headers{'content-length'};
    }
    else {
        return unless $ended;
        $body = $rest;
    }
    return bless { status => $status, headers => \%headers, body => $body }, $class;
}

sub status  { return $_[0]{status} }
sub body    { return $_[0]{body} }
sub headers { return $_[0]{headers} }

# A header's value by its name in any case.
sub header { return $_[0]{headers}{ lc $_[1] } }

# The body as decoded JSON; dies if it isn't JSON.
sub json { return json_of($_[0]{body}) }

sub json_of { return JSON::PP->new->utf8->allow_nonref->decode($_[0]) }

1;
