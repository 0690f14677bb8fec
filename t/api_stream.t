#!/usr/bin/perl

# Large listings: sent in pieces, to clients of every kind, in memory that doesn't grow with them.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use IO::Uncompress::Gunzip qw(gunzip);

my $node = node(http => <<'CONF');
    keyval_zone zone=one:64m;
    keyval_zone zone=two:1m;
    keyval $arg_key $of_one zone=one;
    client_max_body_size 64m;
    root %%PREFIX%%/html;
    server {
        listen 127.0.0.1:%%PORT%% sndbuf=32k;    # so that clients that don't read are noticed
        default_type text/html;
        gzip_types application/json;
        gzip_proxied any;
        location /api     { api write=on; }
        location /gzip    { api; gzip on; }
        location /rated   { api; limit_rate 8m; }
        location /hasty   { api; send_timeout 1s; }
        location /mirrored { mirror /gzip/9/http/keyvals/one; api; }
        location /guarded { auth_request /api/9/http/keyvals/one; api; }
        location /around  { add_before_body /api/9/http/keyvals/two; add_after_body /api/9/http/keyvals/two; addition_types *; api; }
        location /proxied { proxy_pass http://127.0.0.1:%%PORT%%/api; proxy_buffers 4 4k; proxy_max_temp_file_size 0; }
        location /ssi/    { ssi on; }
        location = /value { return 200 $of_one; }
    }
CONF
mkdir $node->prefix . "/$_" for qw(html html/ssi);
$node->write_file('html/ssi/two.html',
    "(<!--# include virtual=\"/api/9/http/keyvals/one\" -->|<!--# include virtual=\"/gzip/9/http/keyvals/two\" -->|<!--# include virtual=\"/gzip/9/http/keyvals/one\" -->)");
$node->start;
my ($worker) = $node->workers;

my $one   = '/9/http/keyvals/one';
my %pairs = map { ("key $_" => "value \"$_\" " . 'x' x ($_ % 600)) } 1 .. 10_000;
is($node->post("/api$one", ZoneMesh::Node::encode(\%pairs))->status, 201, 'many pairs at once');
is($node->add('two', 'a', 'b'), 201, 'one in another zone');

# The whole of them, and nothing twice. Read by a pattern: decoding so much JSON takes Perl a second each time.
sub is_whole {
    my ($body, $name) = @_;
    my ($times, $same, $end) = (0, 0, 0);
    while ($body =~ /\G[{,]"(key \d+)":"((?:[^"\\]|\\.)*)"/g) {
        my ($key, $value) = ($1, $2);
        $times++;
        $same++ if $value eq $pairs{$key} =~ s/"/\\"/gr;
        $end = pos $body;
    }
    return ok($times == 10_000 && $same == 10_000 && substr($body, $end) eq '}', $name)
        || diag(length($body) . " bytes with $times pairs, $same of them as they were, ending in " . substr $body, -100);
}

# A connection on which a request was sent.
sub asked {
    my ($request) = @_;
    my $socket = tcp($node->port);
    print {$socket} $request;
    return $socket;
}

sub get_whole {
    my ($target, @headers) = @_;
    my ($bytes) = read_all(asked(join "\r\n", "GET $target HTTP/1.1", 'Host: a', 'Connection: close', @headers, '', ''), 20);
    return ZoneMesh::Http->parse($bytes, 'GET', 1);
}

subtest 'ways to send' => sub {
    my $plain = get_whole("/api$one");
    is($plain->header('Transfer-Encoding'), 'chunked', 'in chunks');
    is_whole($plain->body, 'all pairs');
    my $compressed = get_whole("/gzip$one", 'Accept-Encoding: gzip');
    is($compressed->header('Content-Encoding'), 'gzip', 'compressed');
    my ($in, $out) = $compressed->body;
    gunzip(\$in => \$out);
    ok(length $in < length($out) / 3, 'to less');
    is_whole($out, 'all pairs, compressed');
    is_whole(get_whole("$_$one")->body, "all pairs from $_") for qw(/rated /mirrored /guarded /proxied);
    is(get_whole("/around$one")->body, '{"a":"b"}' . $plain->body . '{"a":"b"}', 'with something before and after');

    my ($old, $closed) = read_all(asked("GET /api$one HTTP/1.0\r\n\r\n"), 30);
    my ($head, $body) = split /\r\n\r\n/, $old, 2;
    ok($closed, 'to HTTP/1.0, until the connection closes');
    unlike($head, qr/Transfer-Encoding/i, 'without chunks');
    is_whole($body, 'all pairs');

    my $nothing = $node->request('HEAD', "/api$one");
    is($nothing->body, '', 'HEAD has no body');
    is($nothing->status, 200, 'but a status');
    is(length get_whole("/api$one", 'Range: bytes=0-9')->body, length $plain->body, 'no ranges');
    is(get_whole('/api/9/http/keyvals')->body, '{"one":' . $plain->body . ',"two":{"a":"b"}}', 'all zones');
    is(@{ get_whole("/api$one?fields=")->json }, 10_000, 'the names alone');
    is_deeply($node->get("/api$one?fields=key%201,key%202")->json, { map { ($_ => $pairs{$_}) } 'key 1', 'key 2' }, 'two of them');
};

subtest 'one connection for several' => sub {
    my $socket = asked(("GET /api$one HTTP/1.1\r\nHost: a\r\n\r\n") x 2 . "HEAD /api$one HTTP/1.1\r\nHost: a\r\n\r\n"
        . "GET /api/9/http/keyvals/two HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    my ($bytes) = read_all($socket, 30);
    for my $n (1, 2) {
        my $answer = ZoneMesh::Http->parse($bytes, 'GET', 0) or return fail("answer $n");
        is_whole($answer->body, "answer $n");
        substr $bytes, 0, index($bytes, "\r\n0\r\n\r\n") + 7, '';
    }
    like($bytes, qr/\AHTTP\/1.1 200 OK\r\n.*?\r\n\r\nHTTP\/1.1 200 OK\r\n.*\r\n\r\n\{"a":"b"\}\z/s, 'HEAD and another follow');
};

subtest 'within a page' => sub {
    my ($before, $between, $after) = get_whole('/ssi/two.html')->body =~ /\A\((.*)\|(.*?)\|(.*)\)\z/s;
    is_whole($before, 'a large listing');
    is($between, '{"a":"b"}', 'a small one');
    is_whole($after, 'and a large one again');
};

subtest 'a slow client' => sub {
    my $before = ZoneMesh::Node::memory(undef, $worker);
    my @slow   = map { asked("GET /api$one HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") } 1 .. 8;
    my @begun  = map { my $n = sysread $_, my $bytes, 1000; $bytes } @slow;
    my ($rounds, $n) = (0, 0);
    # Meanwhile others are served, and pairs come, change and go.
    while ($rounds++ < 50) {
        is($node->add('one', "other $rounds", 'x' x 100), 201, 'another pair') if $rounds < 40;
        $node->drop('one', 'other ' . ($rounds - 5)) if $rounds > 5;
        $node->change('one', 'key ' . $rounds, $pairs{"key $rounds"}) for 1 .. 2;
        for my $i (0 .. $#slow) { sysread $slow[$i], $begun[$i], 2000, length $begun[$i] }
    }
    cmp_ok(ZoneMesh::Node::memory(undef, $worker) - $before, '<', 6 * 1024, 'eight of them cost little memory (KiB)');
    for my $i (0 .. $#slow) {
        my ($rest) = read_all($slow[$i], 30);
        my $body   = ZoneMesh::Http->parse($begun[$i] . $rest, 'GET', 1)->body;
        $body =~ s/,?"other \d+":"x*"//g;
        $body =~ s/^\{,/{/;
        is_whole($body, 'and gets every pair that was there all the time once');
    }
};

subtest 'clients that go away' => sub {
    my $active = sub { $node->get('/api/9/connections')->json->{active} };
    my $before = $active->();
    for my $place (qw(/api /gzip /rated /ssi/two.html?)) {
        for (1 .. 5) {
            my $socket = asked("GET $place$one HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
            sysread $socket, my $some, 3000;
            close $socket;
        }
    }
    eventually { $active->() <= $before } 'leave nothing behind';
    my $socket = asked("GET /hasty$one HTTP/1.1\r\nHost: a\r\n\r\n");
    sysread $socket, my $some, 100;
    eventually { $node->tail(400) =~ /client timed out/ } 'who does not read is given up after send_timeout';
    is_deeply([ $node->workers ], [$worker], 'by the same worker');
};

subtest 'a reload in the middle' => sub {
    my $socket = asked("GET /api$one HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    sysread $socket, my $begin, 1000;
    $node->reload;
    my ($rest) = read_all($socket, 20);
    my $body = ZoneMesh::Http->parse($begin . $rest, 'GET', 1)->body;
    $body =~ s/,?"other \d+":"x*"//g;
    $body =~ s/^\{,/{/;
    is_whole($body, 'the old worker sends all');
    eventually { !$node->old_workers } 'and ends';
};

done_testing;
