#!/usr/bin/perl

# The API where other modules stand around it: limit_except, mirror, auth_request, SSI, addition, rewrite.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use MIME::Base64 qw(encode_base64);

my $node = node(http => <<'CONF');
    keyval_zone zone=one:1m;
    keyval_zone zone=copy:1m;
    keyval_zone zone=dir/zone:64k;
    client_body_buffer_size 1k;
    large_client_header_buffers 4 64k;
    root %%PREFIX%%/html;
    server {
        listen 127.0.0.1:%%PORT%%;
        default_type text/html;

        location /api {
            limit_except GET {
                auth_basic "NGINX Plus API";
                auth_basic_user_file %%PREFIX%%/users;
            }
            api write=on;
        }
        location /denied/ {
            limit_except GET { deny all; }
            api write=on;
        }
        location /inside/ {
            limit_except GET { api write=on; }
            api write=on;
        }
        location /direct { api write=on; }

        location /mirrored {
            mirror /mirror;
            api write=on;
        }
        location = /mirror {
            internal;
            proxy_pass http://127.0.0.1:%%PORT%%/direct/9/http/keyvals/copy;
        }
        location /to_mirror {
            mirror /direct/9/http/keyvals/one;
            proxy_pass http://127.0.0.1:%%PORT%%/direct;
        }

        location /guarded {
            auth_request /direct/9/http/keyvals/one;
            proxy_pass http://127.0.0.1:%%PORT%%/direct;
        }
        location /guarded_by_none {
            auth_request /direct/9/http/keyvals/none;
            proxy_pass http://127.0.0.1:%%PORT%%/direct;
        }
        location /guarded_api {
            auth_request /direct/9/nginx;
            api write=on;
        }

        location /ssi/ { ssi on; }
        location = /added.html { addition_types *; add_after_body /direct/9/http/keyvals/one; }
        location /old/ { rewrite ^/old/(.*)$ /direct/9/http/keyvals/$1; }
        location /lost { error_page 404 = /direct/9/http/keyvals/one; }
    }
CONF

mkdir $node->prefix . "/$_" for qw(html html/ssi);
$node->write_file('users', "admin:{PLAIN}secret\n");
$node->write_file('html/ssi/one.html',    "<<!--# include virtual=\"/direct/9/http/keyvals/one?key=a%20b\" -->>\n");
$node->write_file('html/ssi/zone.html',   "<<!--# include virtual=\"/direct/9/http/keyvals/dir%2Fzone\" -->>\n");
$node->write_file('html/ssi/none.html',   "<<!--# include virtual=\"/direct/9/http/keyvals/none\" -->>\n");
$node->write_file('html/ssi/set.html',    "<!--# include virtual=\"/direct/9/http/keyvals/one\" set=\"it\" --><<!--# echo var=\"it\" encoding=\"none\" -->>\n");
$node->write_file('html/ssi/two.html',    "<<!--# include virtual=\"/direct/\" -->><<!--# include virtual=\"/direct/9/http/requests?fields=current\" -->>\n");
$node->write_file('html/added.html', "before\n");
$node->start;

my $one   = '/9/http/keyvals/one';
my %admin = (headers => { Authorization => 'Basic ' . encode_base64('admin:secret', '') });
my $large = 'v' x 20_000;

subtest 'limit_except' => sub {
    is($node->get("/api$one")->status, 200, 'GET needs no name');
    is($node->request('HEAD', "/api$one")->status, 200, 'nor HEAD');
    for my $case ([ POST => '{"a":"1"}' ], [ PATCH => '{"a":"2"}' ], ['DELETE']) {
        my ($method, $body) = @$case;
        my $answer = $node->request($method, "/api$one", body => $body);
        is($answer->status, 401, "$method needs one");
        like($answer->header('WWW-Authenticate'), qr/Basic realm="NGINX Plus API"/, "$method: asked for");
    }
    is_deeply($node->get("/direct$one")->json, {}, 'nothing has changed');
    is($node->post("/api$one", '{"a":"1"}', %admin)->status, 201, 'POST with a name');
    is($node->patch("/api$one/", qq({"a":"$large"}), %admin)->status, 204, 'PATCH with a name and a large body');
    is_deeply($node->get("/api$one")->json, { a => $large }, 'is done');
    is($node->request('OPTIONS', "/api$one", %admin)->header('Allow'), 'GET, HEAD, POST, PATCH, DELETE, OPTIONS', 'OPTIONS');
    my $put = $node->request('PUT', "/api$one", body => '{}', %admin);
    is($put->json->{error}{code}, 'MethodNotSupported', 'PUT with a name');
    is($node->delete("/api$one", %admin)->status, 204, 'DELETE with a name');
    is_deeply($node->get("/api$one")->json, {}, 'is done');
    is($node->get('/api/9/nginx')->status, 200, 'other endpoints');
    is($node->delete('/api/9/connections')->status, 401, 'and resets alike');

    is($node->post("/denied$one", '{"a":"1"}')->status, 403, 'deny all');
    is($node->get("/denied$one")->status, 200, 'but not for GET');
    is($node->post("/inside$one", '{"a":"1"}')->status, 201, 'api within limit_except');
    is($node->delete("/inside$one")->status, 204, 'too');
};

subtest 'mirror' => sub {
    my ($small_copy, $large_copy) = map { ZoneMesh::Node::encode({ $_ => "of $_" . ($_ eq 'large' ? $large : '') }) } qw(small large);
    for my $body ($small_copy, $large_copy) {
        my $pair = json($body);
        is($node->post("/mirrored$one", $body)->status, 201, 'behind a mirror');
        is_deeply($node->get("/direct$one")->json, $pair, 'the pair is there');
        eventually_is { $node->get('/direct/9/http/keyvals/copy')->json } $pair, 'and its mirror image';
        is($node->delete("/direct/9/http/keyvals/$_")->status, 204, "$_ emptied") for qw(one copy);
    }
    is_deeply($node->get("/mirrored$one")->json, {}, 'GET behind a mirror');

    # The API as the mirror: a POST there is made into a subrequest with the body.
    is($node->post('/to_mirror/9/http/keyvals/copy', '{"m":"1"}')->status, 201, 'the API as a mirror');
    eventually_is { $node->get("/direct$one")->json } { m => '1' }, 'gets the body';
    is($node->delete("/direct/9/http/keyvals/$_")->status, 204, "$_ emptied") for qw(one copy);
};

subtest 'auth_request' => sub {
    is($node->get("/guarded$one")->status, 200, 'a zone that exists lets in');
    is($node->post("/guarded$one", qq({"g":"$large"}))->status, 201, 'and the body stays for the request itself');
    is_deeply($node->get("/guarded$one?key=g")->json, { g => $large }, 'which was done');
    is($node->get("/guarded_by_none$one")->status, 500, 'a failure of the API is one of auth_request');
    is($node->post("/guarded_api$one", '{"h":"1"}')->status, 201, 'the API guarded by the API');
    is_deeply($node->get("/guarded_api$one?key=h")->json, { h => '1' }, 'shows it');
    is($node->delete("/guarded_api$one")->status, 204, 'emptied');
};

subtest 'SSI and addition' => sub {
    is($node->post("/direct$one", '{"a b":"<1>"}')->status, 201, 'a pair');
    is($node->get('/ssi/one.html')->body, qq(<{"a b":"<1>"}>\n), 'a pair within a page');
    is($node->get('/ssi/set.html')->body, qq(<{"a b":"<1>"}>\n), 'in a variable of the page');
    like($node->get('/ssi/two.html')->body, qr/^<\[1,2,3,4,5,6,7,8,9\]><\{"current":\d+\}>$/, 'twice in a page');
    is($node->post('/direct/9/http/keyvals/dir%2Fzone', '{"z":"1"}')->status, 201, 'a zone with a slash in its name');
    is($node->get('/ssi/zone.html')->body, qq(<{"z":"1"}>\n), 'within a page');
    my $none = $node->get('/ssi/none.html');
    is($none->status, 200, 'a failure within a page');
    like($none->body, qr/^<\{"error":.*"KeyvalNotFound".*\}>$/, 'shows its object');
    is($node->request('POST', '/ssi/one.html', body => '{"x":"y"}')->status, 405, 'POST of a page stays refused');
    is($node->get('/added.html')->body, qq(before\n{"a b":"<1>"}), 'after a page');
};

subtest 'other ways to the API' => sub {
    is_deeply($node->get('/old/one?key=a%20b')->json, { 'a b' => '<1>' }, 'rewritten');
    is($node->post('/old/one', qq({"r":"$large"}))->status, 201, 'POST rewritten');
    is_deeply($node->get('/old/dir%2Fzone')->json, { z => '1' }, 'with a slash in the name');
    is($node->get('/lost/page')->json->{r}, $large, 'as an error page');
};

done_testing;
