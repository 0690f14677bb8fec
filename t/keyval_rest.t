#!/usr/bin/perl

# keyval_rest: values as bodies, one record a path.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use MIME::Base64 qw(encode_base64);

my $node = node(http => <<'CONF');
    keyval_zone zone=later:64k;
    client_max_body_size 2m;
    client_body_buffer_size 16k;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /kv/    { keyval_rest zone=one; }
        location /timed/ { keyval_rest zone=timed; }
        location /small/ { keyval_rest zone=later; }
        location /tight/ { keyval_rest zone=one; client_max_body_size 10; }
        location /guarded/ {
            limit_except GET {
                auth_basic realm;
                auth_basic_user_file %%PREFIX%%/users;
            }
            keyval_rest zone=one;
        }
        location /if/    { if ($arg_on) { keyval_rest zone=one; } }
        location /api    { api write=on; }
        location = /one  { return 200 $of_one; }
        location /proxy/ { proxy_pass http://127.0.0.1:%%PORT%%/kv/; }
    }
    keyval $arg_key $of_one zone=one;
    keyval_zone zone=one:8m;
    keyval_zone zone=timed:1m timeout=1h;
CONF
$node->write_file('users', "admin:{PLAIN}secret\n");
$node->start;

sub put { my ($target, $body, %headers) = @_; return $node->request('PUT', $target, body => $body, headers => \%headers) }

subtest 'values' => sub {
    is($node->get('/kv/a')->status, 404, 'nothing yet');
    is($node->get('/kv/a')->json->{error}{code}, 'KeyvalKeyNotFound', 'says an object');
    my $value = join '', map { chr } 0 .. 255;
    my $created = put('/kv/a', $value);
    is($created->status, 201, 'PUT creates');
    my $got = $node->get('/kv/a');
    is($got->body, $value, 'GET gives every byte');
    is($got->header('Content-Type'), 'application/octet-stream', 'of no type');
    is($got->header('ETag'), $created->header('ETag'), 'with its tag');
    is($got->header('Cache-Control'), 'no-cache', 'to be asked for again');
    is($node->get('/one?key=a')->body, $value, 'a variable has it');
    is(put('/kv/a', 'v')->status, 204, 'PUT replaces');
    is($node->post('/kv/a', 'w')->status, 409, 'POST does not');
    is($node->post('/kv/b', '')->status, 201, 'POST creates, also an empty value');
    is($node->get('/kv/b')->body, '', 'which is there');
    my $head = $node->request('HEAD', '/kv/a');
    is($head->status . $head->body . $head->header('Content-Length'), '2001', 'HEAD');
    is($node->delete('/kv/a')->status, 204, 'DELETE');
    is($node->delete('/kv/a')->status, 404, 'once');
    for my $size (10_000, 20_000, 1_048_576) {
        my $large = substr join('', map { chr $_ % 251 } 1 .. 4096) x 300, 0, $size;
        is(put('/kv/large', $large)->status, $size == 10_000 ? 201 : 204, "$size bytes");
        ok($node->get('/kv/large')->body eq $large, 'come back');
        ok($node->get('/proxy/large')->body eq $large, 'through a proxy');
    }
    is(put('/kv/large', 'x' x 1_048_577)->status, 413, 'more than a value may have');
    my $tight = put('/tight/large', 'x' x 11);
    is($tight->status, 413, 'more than a body may have');
    is($tight->json->{error}{code}, 'BodyTooLarge', '... by the word of nginx, which is an error object as well');
    my $patch = $node->patch('/kv/a', 'x');
    is($patch->status, 405, 'no PATCH');
    is($patch->header('Allow'), 'GET, HEAD, PUT, POST, DELETE, OPTIONS', 'but these');
    my $n = 0;
    while (my $answer = put('/small/' . ++$n, 'x' x 1000)) { last if $answer->status != 201 && is($answer->status, 507, 'a full zone') }
};

subtest 'keys' => sub {
    my %keys = ('a%2Fb' => 'a/b', 'a/b//c' => 'a/b//c', '%E9%01%25' => "\xe9\1%", 'x%20y+z' => 'x y+z', '%2F%2Fx' => '//x', 'a/' => 'a/');
    for my $path (sort keys %keys) {
        is(put("/kv/$path", $path)->status, 201, $path);
        is($node->get('/api/9/http/keyvals/one?key=' . ZoneMesh::Node::escape($keys{$path}))->status, 200, 'is this key');
        is($node->get("/kv/$path")->body, $path, 'and is read again');
    }
    is(put('/kv/', 'x')->status, 400, 'no key');
    is($node->get('/kv/x/../b')->body, '', 'a path with dots is the one without');
    is(put('/if/z?on=1', 'x')->status, 201, 'below an if');
};

subtest 'conditions and lives' => sub {
    my $tag = put('/timed/k', 'v', 'X-TTL' => 100)->header('ETag');
    my $got = $node->get('/timed/k');
    like($got->header('Expires'), qr/^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$/, 'its end');
    my $unmodified = $node->get('/timed/k', headers => { 'If-None-Match' => $tag });
    is($unmodified->status . $unmodified->body, '304', 'not modified');
    is($unmodified->header('ETag'), $tag, 'since this version');
    is(put('/timed/k', 'w', 'If-None-Match' => '*')->status, 412, 'it is there');
    is(put('/timed/k', 'w', 'If-Match' => $tag)->status, 204, 'a write in time');
    is(put('/timed/k', 'x', 'If-Match' => $tag)->status, 412, 'a write too late');
    is($node->delete('/timed/k', headers => { 'If-Match' => $tag })->status, 412, 'a delete too late');
    is(put('/timed/k', 'short', 'Cache-Control' => 'max-age=1')->status, 204, 'a short life');
    is($node->get('/timed/k')->body, 'short', 'begins');
    eventually { $node->get('/timed/k')->status == 404 } 'and ends';
    is(put('/timed/k', 'v', 'X-TTL' => 'soon')->status, 400, 'not a life');
    my @now  = gmtime time + 3600;
    my $date = sprintf '%s, %02d %s %04d %02d:%02d:%02d GMT', (qw(Sun Mon Tue Wed Thu Fri Sat))[ $now[6] ], $now[3],
        (qw(Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec))[ $now[4] ], 1900 + $now[5], @now[ 2, 1, 0 ];
    is(put('/timed/dated', 'v', Expires => $date)->status, 201, 'a life up to a date');
    is($node->get('/timed/dated')->header('Expires'), $date, 'ends then');
    is(put('/timed/dated', 'v', Expires => 'Thu, 01 Jan 1970 00:00:00 GMT')->status, 400, 'not in the past');
    my $post = $node->post('/timed/new', 'v', headers => { 'If-Match' => '"x"' });
    is($post->status, 412, 'a POST has conditions, too');
    is(put('/kv/k', 'v', 'X-TTL' => '5')->status, 400, 'not without a timeout');
};

subtest 'limit_except' => sub {
    is(put('/kv/g', 'v')->status, 201, 'a value');
    is($node->get('/guarded/g')->body, 'v', 'is for all to read');
    my $refused = put('/guarded/g', 'w');
    is($refused->status, 401, 'and not to write');
    is($refused->json->{error}{code}, 'Unauthorized', '... as an error object says');
    is($node->delete('/guarded/g')->status, 401, 'nor to delete');
    my $who = 'Basic ' . encode_base64('admin:secret', '');
    is(put('/guarded/g', 'w', Authorization => $who)->status, 204, 'but for whom knows the word');
    is($node->get('/kv/g')->body, 'w', 'done');
};

config_fails({ http => 'keyval_zone zone=a:32k; server { location /k/ { keyval_rest zone=b; } }' }, [ 'unknown zone "b"', 'keyval_rest' ], 'no such zone');
config_fails({ http => 'keyval_zone zone=a:32k; server { location ~ /k/ { keyval_rest zone=a; } }' }, 'regular expression', 'a pattern');
config_fails({ http => 'keyval_zone zone=a:32k; server { location /k/ { keyval_rest zone=a; api; } }' }, 'location of its own', 'beside api');
config_fails({ http => 'keyval_zone zone=a:32k; server { location /k/ { keyval_rest zone=a; proxy_pass http://127.0.0.1; } }' }, 'location of its own', 'beside others');
config_fails({ http => 'keyval_zone zone=a:32k; server { location /k/ { keyval_rest a; } }' }, 'unknown parameter "a"', 'no zone=');
done_testing;
