# A variable of keyval does its work wherever nginx takes a variable, and is written wherever nginx sets one.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $node = node(workers => 2);
mkdir $node->prefix . "/$_" for qw(html html/a html/b);
$node->write_file("html/$_/file", "file of $_") for qw(a b);
$node->write_file('html/page.shtml', '<!--#if expr="$value = a" -->yes<!--#else -->no<!--#endif --> <!--#echo var="value" -->');
$node->{vars} = { A => port(), B => port() };
$node->configure(http => <<'CONF')->start;
    keyval_zone zone=one:1m timeout=1h;
    keyval $arg_key      $value    zone=one;
    keyval user:$arg_key $user     zone=one;
    keyval backend       $backend  zone=one;
    keyval counted       $quiet    zone=one;

    map $value $mapped { default other; a is-a; ~^b(?<rest>.*) "b-and-$rest"; }
    # from one key to the next
    keyval $value $second zone=one;
    split_clients "$value" $split { * all; }
    log_format values "$request_uri $value";
    limit_req_zone $value zone=limit:1m rate=1r/m;

    upstream a { server 127.0.0.1:%%A%%; }
    upstream b { server 127.0.0.1:%%B%%; }
    server { listen 127.0.0.1:%%A%%; return 200 "backend a, told $http_x_value"; }
    server { listen 127.0.0.1:%%B%%; return 200 "backend b, told $http_x_value"; }

    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        root html;
        location /api      { api write=on; }
        location /map      { return 200 $mapped; }
        location /chain    { return 200 "[$second]"; }
        location /header   { add_header X-Value $value always; return 204; }
        location /redirect { return 302 /to/$value; }
        location /rewrite  { rewrite ^ /$value/file break; }
        location /file     { try_files /$value/file =404; }
        location /alias    { alias html/$value/file; }
        location /proxy    { proxy_pass http://$backend; proxy_set_header X-Value $value; }
        location /ssi      { ssi on; ssi_last_modified on; rewrite ^ /page.shtml break; default_type text/html; ssi_types *; }
        location /error    { error_page 404 = @named; }
        location @named    { return 200 "named [$value]"; }
        location /limited  { limit_req zone=limit; try_files /a/file =404; }
        location /logged   { access_log logs/values values; try_files /a/file =404; }
        location /some     { access_log logs/some values if=$quiet; try_files /a/file =404; }
        location /if       { if ($value ~ "^b(.+)$") { return 200 "captured $1"; } if ($value != a) { return 404; } return 200 a; }

        # A subrequest decides who it is, and its answer is kept.
        location /auth {
            auth_request /who;
            auth_request_set $user $upstream_http_x_user;
            try_files /a/file =404;
        }
        location = /who { internal; proxy_pass http://127.0.0.1:%%PORT%%/identity; }
        location = /identity { add_header X-User "user 7"; return 204; }
        location /set-in-if { if ($arg_v) { set $value $arg_v; } return 204; }
        location /set-named { error_page 404 = @set; }
        location @set       { set $value "set in a named location"; return 204; }
    }
CONF

sub body { return $node->get(@_)->body }

$node->add('one', $_->[0], $_->[1]) for [ k => 'a' ], [ l => 'below' ], [ a => 'next' ], [ backend => 'a' ];

is(body('/map?key=k'), 'is-a', 'map: a value');
is(body('/map?key=l'), 'b-and-elow', 'map: an expression');
is(body('/map?key=none'), 'other', 'map: nothing is the default');
is(body('/chain?key=k'), '[next]', 'keyval: a value as the key of another');
is($node->get('/header?key=k')->header('X-Value'), 'a', 'add_header');
is($node->get('/header?key=none')->header('X-Value'), undef, 'add_header: nothing is no header');
like($node->get('/redirect?key=k')->header('Location'), qr{/to/a$}, 'return');
is(body('/rewrite?key=k'), 'file of a', 'rewrite');
is(body('/file?key=k'), 'file of a', 'try_files');
is($node->get('/file?key=none')->status, 404, 'try_files: nothing leads to nothing');
is(body('/alias?key=k'), 'file of a', 'alias');
is(body('/proxy?key=k'), 'backend a, told a', 'proxy_pass, proxy_set_header');
is($node->change('one', 'backend', 'b'), 204, 'another upstream');
is(body('/proxy?key=l'), 'backend b, told below', '... is where requests go now, without a reload');
is(body('/ssi?key=k'), 'yes a', 'SSI');
is(body('/error?key=k'), 'named [a]', 'after an internal redirect');
is(body('/if?key=k'), 'a', 'if: equal');
is(body('/if?key=l'), 'captured elow', 'if: an expression');
is($node->get('/if?key=none')->status, 404, 'if: nothing');
is($node->get('/limited?key=k')->status, 200, 'limit_req_zone: the first of a value');
is($node->get('/limited?key=k')->status, 503, 'limit_req_zone: the second');
is($node->get('/limited?key=l')->status, 200, 'limit_req_zone: one of another');
is($node->get('/limited?key=none')->status, 200, "limit_req_zone: nothing isn't limited") for 1 .. 2;

my $logged = sub { return ZoneMesh::Node::slurp($node->prefix . "/logs/$_[0]") };
body('/logged?key=k');
eventually_is { $logged->('values') } "/logged?key=k a\n", 'log_format';
body('/some?key=k');
is($node->add('one', 'counted', 1), 201, 'access_log if=: switched on while it runs');
body('/some?key=l');
eventually_is { $logged->('some') } "/some?key=l below\n", '... and only then is logged';

is(body('/auth?key=alice'), 'file of a', 'auth_request_set');
is($node->keyvals('one')->{'user:alice'}, 'user 7', '... writes');
is($node->get('/set-in-if?key=s&v=1')->status, 204, 'set within if');
is($node->keyvals('one')->{s}, 1, '... writes');
is($node->get('/set-in-if?key=t')->status, 204, 'set within an if that is not true');
ok(!exists $node->keyvals('one')->{t}, "... doesn't");
is($node->get('/set-named?key=n')->status, 204, 'set in a named location');
is($node->keyvals('one')->{n}, 'set in a named location', '... writes');

done_testing;
