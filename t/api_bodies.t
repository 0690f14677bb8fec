#!/usr/bin/perl

# Bodies of every size and way of arrival, and every text in keys and values.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $node = node(http => <<'CONF')->start;
    keyval_zone zone=one:64m;
    keyval $arg_key $of_one zone=one;
    client_max_body_size 64m;
    client_body_buffer_size 1k;
    large_client_header_buffers 4 256k;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api    { api write=on; }
        location /file   { api write=on; client_body_in_file_only clean; }
        location /single { api write=on; client_body_in_single_buffer on; client_body_buffer_size 4m; }
        location /memory { api write=on; client_body_buffer_size 4m; }
        location = /one  { return 200 $of_one; }
    }
CONF

my $kv = '/9/http/keyvals/one';
my $n  = 0;

# The same pair in by each way, and out by the API and a variable.
sub round_trip {
    my ($name, $value, @how) = @_;
    my $key  = 'key' . ++$n;
    my $body = ZoneMesh::Node::encode({ $key => $value });
    my ($place, $send) = @how;
    my $answer = $send ? $send->("$place$kv", $body) : $node->post("$place$kv", $body);
    is($answer->status, 201, "$name: added") or diag($answer->body);
    ok($node->get("/api$kv?key=$key")->body eq $body, "$name: the API shows it");
    utf8::encode($value);
    ok($node->get("/one?key=$key")->body eq $value, "$name: a variable has it");
    return;
}

my $long = join '', map { chr 32 + $_ * 7 % 90 } 1 .. 100_000;
for my $size (1, 1000, 1024, 1100, 4096, 16_384, 100_000, 1_048_576) {
    my $value = substr $long x 11, 0, $size;
    round_trip("$size bytes, in $_", $value, $_) for qw(/api /file /single /memory);
}

subtest 'chunked, in pieces of any size' => sub {
    for my $size (1, 1000, 5000, 70_000) {
        my $send = sub {
            my ($target, $body) = @_;
            return $node->request('POST', $target, chunked => [ unpack "(a$size)*", $body ]);
        };
        round_trip("pieces of $size", substr($long, 0, $size == 1 ? 3000 : 100_000), $_, $send) for qw(/api /file /memory);
    }
};

subtest 'a body that arrives slowly' => sub {
    for my $place (qw(/api /memory)) {
        my $send = sub {
            my ($target, $body) = @_;
            my $socket = tcp($node->port);
            print {$socket} "POST $target HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: " . length($body) . "\r\n\r\n";
            for my $piece (unpack '(a900)*', $body) {
                print {$socket} $piece;
                sleep 0.02;    # so that nginx reads it apart from the next
            }
            my ($bytes) = read_all($socket);
            return ZoneMesh::Http->parse($bytes, 'POST', 1);
        };
        round_trip("in $place", substr($long, 0, 4000), $place, $send);
    }
};

subtest 'a client that goes away in the middle of its body' => sub {
    for my $place (qw(/api /memory)) {
        my $socket = tcp($node->port);
        print {$socket} "POST $place$kv HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n{\"gone\":\"half";
        close $socket;
    }
    is($node->get("/api$kv?key=gone")->status, 404, 'adds nothing');
};

subtest 'requests that follow each other on one connection' => sub {
    my $socket = tcp($node->port);
    my @bodies = map { ZoneMesh::Node::encode({ "kept$_" => substr $long, $_, $_ * 700 }) } 1 .. 8;
    my $out    = '';
    for my $body (@bodies) {
        $out .= "POST /api$kv HTTP/1.1\r\nHost: localhost\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
    }
    # A method that takes no body has one: it must not be taken for the next request.
    $out .= "GET /api$kv?key=kept1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{\"a\":\"b\"}";
    $out .= "PUT /api$kv HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000\r\n\r\n" . 'x' x 3000;
    $out .= "PATCH /api$kv HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n\r\n{\"kept1\":null}";
    $out .= "OPTIONS /api$kv HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    print {$socket} $out;
    my ($bytes) = read_all($socket);
    is(join(' ', $bytes =~ m{HTTP/1\.1 (\d{3}) }g), join(' ', (201) x 8, 200, 405, 204, 204), 'are answered in their order');
    is($node->get("/api$kv?key=kept8")->json->{kept8}, substr($long, 8, 5600), 'and done');
};

subtest 'any text' => sub {
    is($node->delete("/api$kv")->status, 204, 'emptied');
    my %texts = (
        'quotes and backslashes' => q(" \\ / ' \\" \\\\ \\u0041),
        'control characters'     => join('', map { chr } 1 .. 31, 127),
        'spaces'                 => "  \t\r\n ",
        'Latin and beyond'       => "\x{80}\x{e9}\x{ff}\x{3b1}\x{5d0}\x{65e5}\x{672c}\x{2028}\x{fffd}\x{feff}",
        'beyond 16 bits'         => "\x{1f980}\x{10ffff}\x{10000}",
        'like JSON'              => '{"a":[null,1]}',
        'like variables'         => '$arg_key ${x} %41 +&=',
        'markup'                 => '</script><!-- & -->',
    );
    for my $name (sort keys %texts) {
        my $text = $texts{$name};
        my $url  = "/api$kv?key=" . ZoneMesh::Node::escape($text);
        is($node->add('one', $text, "of $text"), 201, "$name: added");
        ok($node->get($url)->json->{$text} eq "of $text", "$name: as key and value");
        is($node->change('one', $text, $text x 3), 204, "$name: changed");
        ok($node->get($url)->json->{$text} eq $text x 3, "$name: seen");
    }
    # The same with every character escaped, as some clients write JSON.
    my $ascii = JSON::PP->new->ascii->encode({ $texts{'beyond 16 bits'} . 'x' => $texts{'Latin and beyond'} });
    is($node->post("/api$kv", $ascii)->status, 201, 'with \u escapes and surrogates');
    my $all = $node->get("/api$kv")->json;
    is($all->{ $texts{'beyond 16 bits'} . 'x' }, $texts{'Latin and beyond'}, 'is the same text');
    is($all->{$_}, $_ x 3, 'in the listing too') for values %texts;

    is($node->post("/api$kv", '{"nul\u0000key":"a\u0000b"}')->status, 201, 'NUL in key and value');
    is_deeply($node->get("/api$kv?key=nul%00key")->json, { "nul\0key" => "a\0b" }, 'is kept');
    is($node->post("/api$kv", '{"empty":""}')->status, 201, 'an empty value');
    is_deeply($node->get("/api$kv?key=empty")->json, { empty => '' }, 'is a value');
};

subtest 'the longest key and many pairs' => sub {
    is($node->delete("/api$kv")->status, 204, 'emptied');
    my $key = 'k' x 65_536;
    is($node->add('one', $key, 'v'), 201, 'a key of 64 KiB');
    is($node->get("/one?key=$key")->body, 'v', 'a variable finds it');
    is($node->drop('one', $key), 204, 'and it goes');
    my %pairs = map { ("key $_" => "value $_ " . 'x' x ($_ % 50)) } 1 .. 10_000;
    is($node->post("/api$kv", ZoneMesh::Node::encode(\%pairs), timeout => 30)->status, 201, '10,000 pairs in one body');
    my $shown = $node->get("/api$kv", timeout => 30)->json;
    is(scalar keys %$shown, 10_000, 'are listed');
    ok(!(grep { $shown->{$_} ne $pairs{$_} } keys %pairs), 'each with its value');
};

done_testing;
