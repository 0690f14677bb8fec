#!/usr/bin/perl

# Watching in other ways than over plain HTTP/1.1 with epoll: over HTTP/2, compressed, and where nginx waits by poll or select,
# so that watchers can't sleep on the bell and look again and again instead.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Watch;

allow_log(qr/invalid event type/);    # of an nginx that was built without it

my $http = <<'CONF';
    keyval_zone zone=one:1m timeout=1h;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%CLEAR%% http2;
        gzip_types text/event-stream;
        location /api  { api write=on; }
        location /gzip { api; gzip on; }
    }
CONF

# What curl has been sent, read line by line as it comes: gives the lines up to one that matches.
sub until_line {
    my ($out, $seen, $wanted) = @_;
    my $deadline = time + 10;
    while (1) {
        return $1 if $$seen =~ s/\A(.*?^(?:$wanted)\n)//ms;
        my $left = $deadline - time;
        return $$seen if $left <= 0 || !IO::Select->new($out)->can_read($left);
        sysread($out, $$seen, 65_536, length $$seen) or return $$seen;
    }
}

for my $way (
    [ 'HTTP/2',             'clear', 'api',  '--http2-prior-knowledge' ],
    [ 'gzip',               'plain', 'gzip', '--compressed' ],
    [ 'gzip over HTTP/2',   'clear', 'gzip', '--http2-prior-knowledge', '--compressed' ],
) {
    my ($name, $port, $place, @options) = @$way;
    subtest $name => sub {
        my $node   = node(vars => { CLEAR => port() }, http => $http)->start;
        my $number = $port eq 'clear' ? $node->{vars}{CLEAR} : $node->port;
        my $pid    = open my $out, '-|', 'curl', '-sSN', '-i', '--max-time', '60', @options,
            "http://127.0.0.1:$number/$place/9/zonemesh/keyvals/one/watch" or die "curl: $!";
        my $seen = '';
        my $head = until_line($out, \$seen, 'id: [^\n]*');
        like($head, qr{^HTTP/\S+ 200}, 'a stream');
        like($head, qr/^content-encoding: gzip/mi, 'compressed') if $place eq 'gzip';
        for my $n (1 .. 3) {
            is($node->add('one', "k$n", "v$n"), 201, 'a change');
            like(until_line($out, \$seen, qr/data: [^\n]*"k$n"[^\n]*/), qr/^event: set\ndata: \{"key":"k$n","value":"v$n"/m, '... is told at once');
        }
        is($node->drop('one', 'k1'), 204, 'a delete');
        like(until_line($out, \$seen, qr/data: [^\n]*"k1"[^\n]*/), qr/^event: delete\n/m, '... too');
        kill 'TERM', $pid;
        close $out;
        ok(defined $node->quit, 'and the node ends when told to');
    };
}

for my $method (qw(poll select)) {
    subtest "use $method" => sub {
        my $node = node(vars => { CLEAR => port() }, workers => 2, events => "use $method; worker_connections 256;", http => $http);
        my ($works, $said) = $node->check;
        plan(skip_all => "this nginx was built without $method") if !$works && $said =~ /invalid event type/;
        $node->start;
        my $watch = ZoneMesh::Watch->new($node, 'one');
        is($node->add('one', 'k', 'v'), 201, 'a change');
        is_deeply($watch->wait_for(1), ['set k'], '... is told');
        is($node->drop('one', 'k'), 204, 'a delete');
        is_deeply($watch->wait_for(1), ['delete k'], '... too');
        is($node->post('/api/9/http/keyvals/one', '{"short":{"value":"x","expire":100}}')->status, 201, 'a short life');
        is_deeply($watch->wait_for(2), [ 'set short', 'expire short' ], '... comes and goes');
        my %pairs = map { ("key $_" => 'v' x 200) } 1 .. 3000;
        is($node->request('PUT', '/api/9/zonemesh/keyvals/one', body => ZoneMesh::Node::encode(\%pairs))->status, 200, 'many pairs, in many turns');
        is(scalar keys %{ $node->keyvals('one') }, 3000, '... are listed');
        ok(defined $node->quit, 'and the node ends when told to');
    };
}

done_testing;
