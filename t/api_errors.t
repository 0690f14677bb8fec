#!/usr/bin/perl

# Failures of the REST API: status, code and text of each, always as JSON, and nothing changed.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $node = node(http => <<'CONF')->start;
    keyval_zone zone=one:1m;
    keyval_zone zone=timed:1m timeout=1h;
    client_max_body_size 2m;
    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Request-ID $request_id always;
        location /api   { api write=on; }
        location /read  { api; }
        location /off   { api write=off; }
        location /tight { api write=on; client_max_body_size 1k; }
        location /roomy { api write=on; client_max_body_size 200k; }
    }
CONF

my ($one, $timed) = map { "/api/9/http/keyvals/$_" } qw(one timed);
is($node->add('timed', 'there', 'v'), 201, 'something that must not change');

# Checks one failure whole.
sub fails {
    my ($answer, $status, $code, $name, $text) = @_;
    subtest $name => sub {
        is($answer->status, $status, 'status');
        like($answer->header('Content-Type') // '', qr{^application/json\b}, 'type');
        my $json = eval { $answer->json } // {};
        is(ref $json->{error}, 'HASH', 'an error object') or return diag($answer->body);
        is($json->{error}{status}, $status, 'status in the body');
        is($json->{error}{code},   $code,   'code');
        like($json->{error}{text}, $text // qr/\w/, 'text');
        like($json->{request_id}, qr/^[0-9a-f]{32}$/, 'request_id');
        is($json->{request_id}, $answer->header('X-Request-ID'), 'is that of the request');
        like($json->{href}, qr{^https?://}, 'href');
    };
    return $answer;
}

fails($node->get("/api$_"), 404, 'UnknownVersion', "GET $_") for qw(/0 /10/ /99/nginx /nginx /x);
fails($node->get("/api/9$_"), 404, 'PathNotFound', "GET $_")
    for qw(/x /http/x /http/requests/x /nginx/x /stream /stream/keyvals /stream/zone_sync);
fails($node->get('/api/9/slabs/none'), 404, 'SlabNotFound', 'an unknown zone of memory');

for my $version (1 .. 9) {
    my $json = $node->get("/api/$version/none")->json;
    if ($version <= 3) {
        is_deeply([ @$json{qw(path method)} ], [ '', '' ], "version $version: path and method are there, and empty");
    }
    else {
        ok(!exists $json->{path} && !exists $json->{method}, "version $version: neither path nor method");
    }
}

# Methods.
for my $method (qw(PUT COPY TRACE FOO)) {
    my $answer = $node->request($method, $one, body => '{"a":"b"}');
    next if $answer->status == 405 && $method eq 'TRACE' && $answer->header('Content-Type') !~ /json/;    # nginx's own
    fails($answer, 405, 'MethodNotSupported', "$method of a zone");
    is($answer->header('Allow'), 'GET, HEAD, POST, PATCH, DELETE, OPTIONS', "$method: Allow");
}
for my $case ([ POST => '/api/9/http/keyvals' ], [ DELETE => '/api/9/http/keyvals/' ], [ PATCH => '/api/9/nginx' ], [ POST => '/api' ]) {
    my $answer = fails($node->request(@$case, body => '{"a":"b"}'), 405, 'MethodNotSupported', "@$case");
    is($answer->header('Allow'), 'GET, HEAD, OPTIONS', "@$case: Allow");
}
for my $place (qw(read off)) {
    for my $method (qw(POST PATCH DELETE)) {
        my $answer = $node->request($method, "/$place/9/http/keyvals/timed", body => '{"there":"w"}');
        fails($answer, 405, 'MethodDisabled', "$method without write=on in /$place");
        is($answer->header('Allow'), 'GET, HEAD, OPTIONS', 'Allow');
    }
    fails($node->delete("/$place/9/connections"), 405, 'MethodDisabled', "a reset in /$place");
    is($node->get("/$place/9/http/keyvals/timed")->status, 200, "reading works in /$place");
    is($node->request('OPTIONS', "/$place/9/http/keyvals/timed")->header('Allow'), 'GET, HEAD, OPTIONS', 'OPTIONS');
}

# Zones and keys.
for my $case ([ 'GET' ], [ POST => '{"a":"b"}' ], [ PATCH => '{"a":"b"}' ], [ 'DELETE' ]) {
    my ($method, $body) = @$case;
    fails($node->request($method, '/api/9/http/keyvals/none', body => $body), 404, 'KeyvalNotFound', "$method of an unknown zone");
}
fails($node->get("$timed?key=$_"), 404, 'KeyvalKeyNotFound', "GET ?key=$_") for 'none', 'There', '';
fails($node->patch($timed, $_), 404, 'KeyvalKeyNotFound', "PATCH $_")
    for '{"none":"v"}', '{"none":null}', '{"none":{"expire":5}}', '{"none":{"value":"v","expire":5}}';
fails($node->post($timed, '{"there":"w"}'), 409, 'KeyvalKeyExists', 'POST of a key that exists');

# Bodies.
for my $method (qw(POST PATCH)) {
    for my $body ('', ' ', 'a=b', '{', '{"a":"b"', '{"a":"b"}}', "{'a':'b'}", '{"a":"b",}', "{\"a\":\"\xff\"}", "{\"a\":\"\t\"}") {
        fails($node->request($method, $timed, body => $body), 415, 'JsonError', "$method, not JSON: '$body'");
    }
    fails($node->request($method, $timed), 415, 'JsonError', "$method without a body");
    my %bad = (
        '[]'                                  => qr/JSON object/,
        '"a"'                                 => qr/JSON object/,
        '{}'                                  => qr/key required/,
        '{"":"v"}'                            => qr/invalid key/,
        '{"k":"v","k":"w"}'                   => qr/invalid key.*twice/,
        '{"k":1}'                             => qr/string/,
        '{"k":["v"]}'                         => qr/string/,
        '{"k":{"value":1}}'                   => qr/must be a string/,
        '{"k":{"value":"v","expire":0}}'      => qr/expire/,
        '{"k":{"value":"v","expire":-5}}'     => qr/expire/,
        '{"k":{"value":"v","expire":1.5}}'    => qr/expire/,
        '{"k":{"value":"v","expire":"5"}}'    => qr/expire/,
        '{"k":{"value":"v","expire":1' . '0' x 18 . '}}' => qr/expire/,
        '{"k":{"value":"v","life":5}}'        => qr/"value" and "expire"/,
    );
    for my $body (sort keys %bad) {
        fails($node->request($method, $timed, body => $body), 400, 'KeyvalFormatError', "$method $body", $bad{$body});
    }
    fails($node->request($method, $one, body => '{"k":{"value":"v","expire":5}}'),
        400, 'KeyvalFormatError', "$method: expire without a timeout", qr/timeout not enabled/);
    my ($key, $value) = ('k' x 65_537, 'v' x 1_048_577);
    fails($node->request($method, $timed, body => qq({"$key":"v"})), 400, 'KeyvalFormatError', "$method: a key too long", qr/65536/);
    fails($node->request($method, $timed, body => qq({"k":"$value"})), 400, 'KeyvalFormatError', "$method: a value too long", qr/1048576/);
}
fails($node->post($timed, '{"k":"v","l":"v"}'), 400, 'KeyvalFormatError', 'POST of two into a zone with pairs', qr/only one key can be added/);
fails($node->patch($timed, '{"there":"v","l":"v"}'), 400, 'KeyvalFormatError', 'PATCH of two', qr/only one key can be updated/);
fails($node->post($timed, '{"k":null}'), 400, 'KeyvalFormatError', 'POST of null', qr/value required/);
fails($node->post($one, '{"k":"v","l":1}'), 400, 'KeyvalFormatError', 'a list with one bad pair');

# Too large for nginx, told before the body and found out on the way.
my $large = '{"k":"' . 'v' x 5000 . '"}';
for my $method (qw(POST PATCH)) {
    my $target = '/tight/9/http/keyvals/one';
    fails($node->request($method, $target, body => $large), 413, 'BodyTooLarge', "$method above client_max_body_size");
    fails($node->request($method, $target, chunked => [ unpack '(a700)*', $large ]), 413, 'BodyTooLarge', "$method the same in chunks");
    # More than is read at once: it is found out after the request was taken.
    fails($node->request($method, '/roomy/9/http/keyvals/one', chunked => [ ('v' x 50_000) x 8 ]), 413, 'BodyTooLarge', "$method of much in chunks");
    is($node->request($method, '/tight/9/http/keyvals/one', body => '{"k":"v"}')->status, { POST => 201, PATCH => 204 }->{$method}, 'a small one is done');
}
is($node->clear('one'), 204, 'and taken away');

is_deeply($node->keyvals, { one => {}, timed => { there => 'v' } }, 'after all that nothing has changed');

# What nginx itself refuses.
{
    my $strict = node(http => <<'CONF');
    keyval_zone zone=one:1m;
    limit_req_zone $binary_remote_addr zone=few:32k rate=1r/m;
    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Request-ID $request_id always;
        location /denied  { api; deny all; }
        location /word    { api; auth_basic realm; auth_basic_user_file %%PREFIX%%/users; }
        location /few     { api; limit_req zone=few; }
        location /bad     { api write=on; }
        location /own     { api; deny all; error_page 403 /page; }
        location /said    { if ($arg_no) { return 403 "no"; } api; }
        location /plain   { deny all; }
        location = /page  { return 200 "a page"; }
    }
CONF
    $strict->write_file('users', "admin:{PLAIN}secret\n");
    $strict->start;
    fails($strict->get('/denied/9/nginx'), 403, 'Forbidden', 'a client that is denied');
    my $word = fails($strict->get('/word/2/nginx'), 401, 'Unauthorized', 'no password');
    like($word->header('WWW-Authenticate'), qr/Basic/, 'is asked for');
    is($word->json->{path}, '', 'in the shape of version 2');
    is($strict->request('HEAD', '/denied/9/nginx')->body, '', 'HEAD has no body');
    $strict->get('/few/9/nginx');
    fails($strict->get('/few/9/nginx'), 503, 'ServiceUnavailable', 'too often');
    my $bad = tcp($strict->port);
    print {$bad} "POST /bad/9/http/keyvals/one HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n";
    my ($bytes) = read_all($bad);
    fails(ZoneMesh::Http->parse($bytes, 'POST', 1), 400, 'BadRequest', 'a body that is none');
    is($strict->get('/own/9/nginx')->body, 'a page', 'a page of the user stays');
    is($strict->get('/said/9/nginx?no=1')->body, 'no', 'and a text');
    unlike($strict->get('/plain')->body, qr/error":/, 'other locations have their own');
}

done_testing;
