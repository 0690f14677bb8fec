package ZoneMesh::Backends;

# Servers to put behind an upstream: each an nginx of its own, so that it can be stopped and started.
#
#     my %backends = backends(qw(a b));
#     with($front, s1 => '/app/')             # who answers to the session s1
#
# A backend answers with its name; /login?s=s1 also begins a session (Set-Cookie: session=s1), /slow?s=s1 does so and takes
# seconds for its body, /some takes some seconds, /connection tells how many requests its connection has had.

use strict;
use warnings;

use Exporter 'import';

use ZoneMesh ();

our @EXPORT = qw(backends login with without address_of);

sub backends {
    my (@names) = @_;
    return map {
        my $name = $_;
        my $node = ZoneMesh::node(name => "backend $name", modules => [], http => <<"CONF");
            server {
                listen 127.0.0.1:%%PORT%%;
                default_type text/plain;
                location /login      { add_header Set-Cookie "session=\$arg_s"; return 200 $name; }
                location /slow       { add_header Set-Cookie "session=\$arg_s"; alias %%PREFIX%%/long; limit_rate 1k; }
                location /some       { alias %%PREFIX%%/some; limit_rate 4k; }
                location /connection { return 200 "$name \$connection_requests"; }
                location /fail       { return 503 $name; }
                location /           { return 200 $name; }
            }
CONF
        $node->write_file('long', $name x 100_000);
        $node->write_file('some', $name x 14_000);
        ($name => $node->start);
    } @names;
}

# As an upstream has it, and as its name is made from.
sub address_of { return '127.0.0.1:' . $_[0]->port }

# Begins a session: who answered.
sub login { my ($front, $session, $path) = @_; return $front->get("${path}login?s=$session")->body }

# Who answers to a session; `more` may add cookies or a query.
sub with {
    my ($front, $session, $path, %more) = @_;
    return $front->get($path . ($more{target} // ''), headers => { Cookie => "session=$session" })->body;
}

# Who answers to so many requests of nobody: sorted, each once.
sub without {
    my ($front, $path, $count) = @_;
    my %seen = map { $front->get($path)->body => 1 } 1 .. $count // 12;
    return join '', sort keys %seen;
}

1;
