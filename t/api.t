#!/usr/bin/perl

# The REST API as its clients use it: where it can stand, what it shows of nginx, and key-values with curl's habits.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $node = node(workers => 2, http => <<'CONF', stream => <<'STREAM')->start;
    keyval_zone zone=one:1m;
    keyval_zone zone=timed:1m timeout=1h;
    keyval_zone zone=default/cafe_1:64k;
    keyval_zone zone=small:32k;
    keyval $arg_key $of_one zone=one;
    keyval $arg_key $of_timed zone=timed;
    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Request-ID $request_id always;
        location /api      { api write=on; }
        location /slash/   { api write=on; }
        location = /exact  { api; }
        location /if/      { if ($arg_on) { api; } }
        location = /one    { return 200 "$of_one"; }
        location = /timed  { return 200 "$of_timed"; }
        location = /worker { return 200 $pid; }
    }
CONF
    server { listen 127.0.0.1:%%SYNC%%; return ''; }
STREAM

my $kv = '/api/9/http/keyvals';

subtest 'places' => sub {
    is($node->get($_)->body, '[1,2,3,4,5,6,7,8,9]', "versions at $_")
        for qw(/api /api/ /api? /slash/ /exact /if/?on=1);
    isnt($node->get('/if/9/nginx')->status, 200, 'not where the condition does not hold');
    is_deeply($node->get('/slash/9/http/keyvals/one')->json, {}, 'below a location with a slash at its end');
    is_deeply($node->get('/if/9/http/keyvals/one/?on=1')->json, {}, 'below an if');
    is_deeply($node->get('/api//9///http/keyvals/one//')->json, {}, 'slashes that follow each other are one');
};

subtest 'roots' => sub {
    my @root = @{ $node->get('/api/9/')->json };
    for my $name (qw(nginx processes connections slabs http stream workers)) {
        ok((grep { $_ eq $name } @root), "$name is among the roots");
    }
    for my $root ('/api/9', '/api/9/http', '/api/9/stream') {
        is($node->get("$root/$_")->status, 200, "$root/$_ answers") for @{ $node->get($root)->json };
    }
    is($node->get("/api/$_/nginx")->status, 200, "version $_") for 1 .. 9;
    my $bare = node(http => 'server { listen 127.0.0.1:%%PORT%%; location /api { api; } }')->start;
    ok(!(grep { $_ eq 'stream' } @{ $bare->get('/api/9/')->json }), 'no stream among the roots without its block');
    is($bare->get('/api/9/stream/keyvals')->status, 404, 'and nothing below it');
};

subtest 'headers' => sub {
    my $get = $node->get('/api/9/nginx');
    like($get->header('Content-Type'), qr{^application/json\b}, 'the type of an answer');
    is($get->header('Content-Length'), length $get->body, 'its length');
    is($get->header('Cache-Control'), 'no-store', 'not for caches');
    my $head = $node->request('HEAD', "$kv/one");
    is($head->status, 200, 'HEAD answers');
    is($head->body,   '',  'without a body');
    is($head->header('Content-Length'), 2, 'with the length that GET has');
    my $options = $node->request('OPTIONS', "$kv/one");
    is($options->status, 204, 'OPTIONS answers');
    is_deeply([ sort split /, */, $options->header('Allow') ], [qw(DELETE GET HEAD OPTIONS PATCH POST)], 'and says what is allowed');
    is($node->request('OPTIONS', '/api/9/nginx')->header('Allow'), 'GET, HEAD, OPTIONS', 'which depends on the endpoint');
};

subtest 'nginx' => sub {
    my $iso   = qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
    my $nginx = $node->get('/api/9/nginx')->json;
    my ($version) = qx(@{[ ZoneMesh::Node::nginx() ]} -v 2>&1) =~ m{nginx/([\d.]+)};
    is($nginx->{version}, $version,    'its version');
    is($nginx->{address}, '127.0.0.1', 'the address that was asked');
    is($nginx->{ppid}, $node->pid, 'the master');
    ok((grep { $_ == $nginx->{pid} } $node->workers), 'a worker');
    like($nginx->{$_}, $iso, $_) for qw(timestamp load_timestamp);
    my ($now) = map { my @t = gmtime; sprintf '%04d-%02d-%02dT%02d:%02d', $t[5] + 1900, $t[4] + 1, @t[3, 2, 1] } 1;
    ok(substr($nginx->{timestamp}, 0, 16) le $now && $nginx->{load_timestamp} le $nginx->{timestamp}, 'of this time');
    is_deeply($node->get('/api/9/nginx?fields=ppid,none')->json, { ppid => $node->pid }, 'only the fields asked for');
    $node->reload;
    my $then = $node->get('/api/9/nginx')->json;
    is($then->{generation}, $nginx->{generation} + 1, 'a reload is a generation');
    ok($then->{load_timestamp} gt $nginx->{load_timestamp}, 'with a time of its own');
};

subtest 'figures' => sub {
    my $requests = $node->get('/api/9/http/requests')->json;
    ok($requests->{current} >= 1, 'the request that asks is under way');
    $node->get('/worker') for 1 .. 5;
    is($node->get('/api/9/http/requests')->json->{total}, $requests->{total} + 6, 'requests are counted');
    my $connections = $node->get('/api/9/connections')->json;
    is_deeply([ sort keys %$connections ], [qw(accepted active dropped idle)], 'connections');
    is($node->get('/api/9/connections')->json->{accepted}, $connections->{accepted} + 1, 'are counted');
    ok($connections->{active} >= 1, 'and active');
    my $slabs = $node->get('/api/9/slabs')->json;
    for my $zone (qw(one timed small default/cafe_1)) {
        ok($slabs->{$zone}{pages}{free} + $slabs->{$zone}{pages}{used} >= 6, "$zone has pages");
        ok(ref $slabs->{$zone}{slots} eq 'HASH', "$zone has slots");
    }
    is_deeply([ sort keys %{ $node->get('/api/9/slabs/default%2Fcafe_1/')->json } ], [qw(pages slots)], 'one zone');

    my $asked = sub {
        my $slots = $node->get('/api/9/slabs/small')->json->{slots};
        my $sum   = 0;
        $sum += $_->{reqs} for values %$slots;
        return $sum;
    };
    is($node->add('small', 'a', 'b'), 201, 'a pair takes room');
    ok($asked->() > 0, 'which is counted');
    is($node->delete('/api/9/slabs/small')->status, 204, 'and reset');
    is($asked->(), 0, 'to nothing');
    is($node->clear('small'), 204, 'emptied');

    is($node->delete("/api/9/$_")->status, 204, "$_ is reset") for qw(http/requests connections/ slabs/one);
    ok($node->get('/api/9/http/requests')->json->{total} < $requests->{total}, 'requests count from the start again');
    ok($node->get('/api/9/connections')->json->{accepted} < $connections->{accepted}, 'connections too');
};

subtest 'workers' => sub {
    my @workers = @{ $node->get('/api/9/workers/')->json };
    is_deeply([ map { $_->{id} } @workers ], [ 0, 1 ], 'each has a number');
    is_deeply([ sort { $a <=> $b } map { $_->{pid} } @workers ], [ $node->workers ], 'and a process');
    is($node->delete('/api/9/workers/')->status, 204, 'reset');
    $node->get('/worker') for 1 .. 20;
    my $sum = 0;
    eventually { $sum = 0; $sum += $_->{http}{requests}{total} for @{ $node->get('/api/9/workers')->json }; $sum >= 20 } 'their requests are counted';
    my $idle = tcp($node->port);
    eventually { grep { $_->{connections}{idle} == 1 } @{ $node->get('/api/9/workers')->json } } 'and connections that wait';
    close $idle;
    is($node->get('/api/9/workers/1')->json->{id}, 1, 'one of them');
    is($node->get('/api/9/workers/2')->json->{error}{code}, 'WorkerNotFound', 'one that is not');
    is($node->delete('/api/9/workers/0/')->status, 204, 'one is reset');
    allow_log(qr/exited on signal 9/);
    $node->kill_worker($workers[0]{pid});
    eventually { my @now = @{ $node->get('/api/9/workers')->json }; @now == 2 && $now[0]{pid} != $workers[0]{pid} } 'another takes the place of a dead one';
};

subtest 'what an exporter asks for' => sub {
    for my $path (
        qw(nginx processes slabs connections ssl resolvers http/requests http/caches http/server_zones http/location_zones
        http/upstreams http/limit_reqs http/limit_conns stream/server_zones stream/upstreams stream/limit_conns)
        )
    {
        my $answer = $node->get("/api/8/$path");
        is($answer->status, 200, $path);
        is(ref $answer->json, 'HASH', "$path is an object");
    }
};

subtest 'pairs' => sub {
    is_deeply($node->get("$kv/")->json, { one => {}, timed => {}, 'default/cafe_1' => {}, small => {} }, 'empty zones');
    is($node->post("$kv/one", '{"a":"1","b":"2"}')->status, 201, 'several pairs into an empty zone');
    is($node->post("$kv/one/", '{"c":"3"}')->status, 201, 'one more');
    is_deeply($node->get("$kv/one")->json, { a => 1, b => 2, c => 3 }, 'are all there');
    is_deeply($node->get("$kv/one/?key=b")->json, { b => 2 }, 'one of them');
    is($node->get('/one?key=b')->body, '2', 'a variable sees it');

    my $patch = $node->patch("$kv/one/", '{"b":"20"}');
    is($patch->status, 204, 'PATCH changes');
    is($patch->body,   '',  'and says no more');
    is($node->get('/one?key=b')->body, '20', 'a variable sees that');
    is($node->patch("$kv/one", '{"b":null}')->status, 204, 'PATCH with null deletes');
    is($node->get('/one?key=b')->body, '', 'a variable sees that');
    is_deeply($node->get("$kv/one?fields=a")->json, { a => 1 }, 'fields');
    is_deeply([ sort @{ $node->get("$kv?fields=")->json } ], [ sort qw(one timed small default/cafe_1) ], 'names of zones');
    is($node->delete("$kv/one/")->status, 204, 'DELETE empties');
    is_deeply($node->get("$kv/one")->json, {}, 'the zone');
    is($node->post("$kv/one", '{"a":"1"}', headers => { 'Content-Type' => 'application/x-www-form-urlencoded' })->status,
        201, "curl's Content-Type is accepted");
};

subtest 'names and keys' => sub {
    for my $name (qw(default%2Fcafe_1 default%2fcafe%5f1/)) {
        is($node->delete("$kv/$name")->status, 204, "DELETE $name");
        is($node->post("$kv/$name", '{"a":"1"}')->status, 201, "POST $name");
        is_deeply($node->get("$kv/$name")->json, { a => 1 }, "GET $name");
    }
    my $key = "a b&c=d/%41+\x{e9}";
    utf8::upgrade($key);    # text, not bytes
    is($node->change('one', 'a', undef), 204, 'make room');
    is($node->add('one', $key, 'v'), 201, 'a key with everything');
    is_deeply($node->get("$kv/one?key=" . ZoneMesh::Node::escape($key))->json, { $key => 'v' }, 'is found encoded');
    is_deeply($node->get("$kv/one?x=1&key=a%20b%26c=d/%2541+%C3%A9&key=no")->json, { $key => 'v' }, 'a plus is a plus');
    is($node->get("$kv/one?key=a+b%26c=d/%2541+%C3%A9")->status, 404, 'and no space');
};

subtest 'http and stream are apart' => sub {
    is_deeply($node->get('/api/9/stream/keyvals')->json, {}, 'stream has no zones');
    is($node->get('/api/9/stream/keyvals/one')->status, 404, 'and does not know those of http');
    is($node->post('/api/9/stream/keyvals/one', '{"s":"1"}')->status, 404, 'nor take pairs for them');
    is($node->get("$kv/one?key=s")->status, 404, 'which stay as they were');
};

subtest 'lives' => sub {
    my $api = "$kv/timed";
    is($node->post($api, '{"short":{"value":"s","expire":1000},"long":{"value":"l","expire":600000},"plain":"p"}')->status,
        201, 'pairs with lives');
    is_deeply($node->get($api)->json, { short => 's', long => 'l', plain => 'p' }, 'are there');
    eventually_is { $node->get($api)->json } { long => 'l', plain => 'p' }, 'the short one ends';
    is($node->get('/timed?key=short')->body, '', 'for variables too');
    is($node->patch($api, '{"long":{"expire":1000}}')->status, 204, 'a life is made shorter');
    is($node->get('/timed?key=long')->body, 'l', 'the value stays');
    eventually { $node->get("$api?key=long")->status == 404 } 'and ends';
    is($node->patch($api, '{"plain":{"value":"q","expire":1000}}')->status, 204, 'value and life together');
    is($node->get('/timed?key=plain')->body, 'q', 'the value is there');
    is($node->patch($api, '{"plain":"r"}')->status, 204, 'a value without a life');
    sleep 1.2;    # longer than the life it had before
    is($node->get('/timed?key=plain')->body, 'r', 'lives as long as the zone says');
};

subtest 'a full zone' => sub {
    my %held;
    my $answer;
    for my $n (1 .. 5000) {
        my $value = 'v' x 100;
        $answer = $node->post("$kv/small", qq({"key $n":"$value"}));
        last if $answer->status != 201;
        $held{"key $n"} = $value;
    }
    is($answer->status,              507,              'says that it is full');
    is($answer->json->{error}{code}, 'KeyvalNoMemory', 'with its code');
    cmp_ok(scalar keys %held, '>', 20, 'after some pairs');
    is_deeply($node->get("$kv/small")->json, \%held, 'and keeps all it has');
    is($node->patch("$kv/small", '{"key 1":"' . 'w' x 100 . '"}')->status, 204, 'a value of the same size still fits');
    is($node->delete("$kv/small")->status, 204, 'it can be emptied');
    my %many = map { ("key $_" => 'v' x 100) } 1 .. 1000;
    is($node->post("$kv/small", ZoneMesh::Node::encode(\%many))->status, 507, 'a list that does not fit');
    is_deeply($node->get("$kv/small")->json, {}, 'leaves nothing behind');
    is($node->post("$kv/small", '{"a":"1","b":"2"}')->status, 201, 'and the zone can be filled');
};

subtest 'workers share the zones' => sub {
    my %seen;
    my $all = wait_for(sub {
        my ($pid, $value) = ($node->get('/worker')->body, $node->get('/one?key=shared')->body);
        $seen{$pid} = 1;
        return keys %seen == 2;
    });
    ok($all, 'both workers answer');
    is($node->add('one', 'shared', 'value'), 201, 'a pair');
    my @values = map { $node->get('/one?key=shared')->body } 1 .. 40;
    is_deeply(\@values, [ ('value') x 40 ], 'is seen by all');
};

done_testing;
