# Key-value lines that people have: a deny list, the guide's protection of the API, keys of several variables.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Given;

my $node = node(workers => 2);
my $text = <<'CONF';
    keyval_zone zone=one:1m type=ip state=one.keyval; keyval $remote_addr $target zone=one;
    keyval_zone zone=clients:1m timeout=1h;
    keyval $remote_addr:$http_user_agent $seen zone=clients;
    server {
        listen 80;
        if ($target) { return 403; }
        location /seen { set $before $seen; set $seen yes; return 200 "[$before]"; }
        location / { return 200 welcome; }
    }
    server {
        listen 8080;
        location /api {
            limit_except GET {
                auth_basic "API";
                auth_basic_user_file /etc/nginx/users;
            }
            api write=on;
        }
    }
    server {
        listen 8081;
        location /api/ { api write=on; allow 127.0.0.1; deny all; access_log off; }
    }
CONF
$node->{vars} = { GUARDED => port() };
$node->write_file('users', "admin:{PLAIN}secret\n");
chmod 0777, $node->prefix;    # where `state=` without a folder puts its file
$node->configure(http => given(
    $text,
    'listen 80;'       => 'listen 127.0.0.1:%%PORT%%;',
    'listen 8080'      => 'listen 127.0.0.1:%%GUARDED%%',
    'listen 8081'      => 'listen 127.0.0.1:%%SYNC%%',
    '/etc/nginx/users' => '%%PREFIX%%/users',
))->start;

sub guarded { return ZoneMesh::Http->request($node->{vars}{GUARDED}, @_) }
sub open_one { return ZoneMesh::Http->request($node->sync, @_) }

# A deny list.
my $list = '/api/6/http/keyvals/one';
is($node->get('/')->status, 200, 'nobody is on the deny list');
is(open_one('POST', $list, body => '{"127.0.0.0/8":"1"}')->status, 201, 'a network is put on it');
is($node->get('/')->status, 403, '... and kept out');
is(open_one('PATCH', $list, body => '{"127.0.0.1":"0"}')->status, 404, 'an address in it is not itself on it');
is(open_one('POST', $list, body => '{"127.0.0.1":"0"}')->status, 201, 'an exception for an address');
is($node->get('/')->status, 200, '... is let in');
is(open_one('PATCH', $list, body => '{"127.0.0.1":null}')->status, 204, 'which is taken back');
is($node->get('/')->status, 403, '... and kept out again');
eventually_is { ZoneMesh::Node::slurp($node->prefix . '/one.keyval') =~ m{127\.0\.0\.0/8} ? 1 : 0 } 1, 'the list is kept in a file';
ok(defined $node->quit, '... is there when nginx ends');
$node->start;
is($node->get('/')->status, 403, '... and in force when it begins again');
is(open_one('DELETE', $list)->status, 204, 'the list is emptied');
is($node->get('/')->status, 200, '... and everybody is let in');

# A key of variables and text.
for my $agent ('Mozilla/5.0 (X11; "quoted")', 'curl/7') {
    my @as = (headers => { 'User-Agent' => $agent });
    is($node->get('/seen', @as)->body, '[]',    "$agent: not seen yet");
    is($node->get('/seen', @as)->body, '[yes]', "$agent: seen");
    is(ZoneMesh::json(open_one('GET', '/api/9/http/keyvals/clients')->body)->{"127.0.0.1:$agent"}, 'yes', "$agent: the key is both");
}

# The guide's protection: who only reads needs no password.
is(guarded('GET', $list)->status, 200, 'reading is open');
is(guarded('POST', $list, body => '{"10.0.0.1":"1"}')->status, 401, 'writing is not');
my @admin = (headers => { Authorization => 'Basic YWRtaW46c2VjcmV0' });
is(guarded('POST', $list, body => '{"10.0.0.1":"1"}', @admin)->status, 201, '... but with the password');
is(guarded('PATCH', $list, body => '{"10.0.0.1":null}')->status, 401, 'nor is changing');
is(guarded('PATCH', $list, body => '{"10.0.0.1":null}', @admin)->status, 204, '... but with the password');
is(guarded('DELETE', $list)->status, 401, 'nor is deleting');
is(guarded('DELETE', $list, @admin)->status, 204, '... but with the password');

done_testing;
