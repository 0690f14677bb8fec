# type=prefix: a variable finds the longest record whose key its own key begins with; the API addresses exact keys.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;

my $node = node(workers => 2, http => <<'CONF')->start;
    keyval_zone zone=paths:128k type=prefix timeout=1h;
    keyval $arg_a $found zone=paths;
    server {
        listen 127.0.0.1:%%PORT%%;
        large_client_header_buffers 4 16k;
        location /api  { api write=on; }
        location /find { return 200 "$found"; }
        location /set  { set $found $arg_v; return 204; }
    }
CONF

my $url = '/api/9/http/keyvals/paths';
sub found { return $node->get('/find?a=' . $_[0])->body }

my $long = 'l' x 2048;
my %pairs = ('/' => 'root', '/app' => 'app', '/app/admin' => 'admin', 'z' => 'letter', $long => 'longest');
is($node->post($url, ZoneMesh::Node::encode(\%pairs))->status, 201, 'prefixes are added');
for (
    [ '/',                'root',    'the same' ],
    [ '/other',           'root',    'a prefix' ],
    [ '/app',             'app',     'of two, the longer, which is all of the key' ],
    [ '/application',     'app',     'a prefix need not end where a word does' ],
    [ '/app/admin/users', 'admin',   'of three, the longest' ],
    [ '/ap',              'root',    'a record longer than the key is none' ],
    [ 'z',                'letter',  'one letter' ],
    [ 'app',              '',        'no prefix' ],
    [ '',                 '',        'nothing' ],
    [ $long,              'longest', 'the longest that a prefix can be' ],
    [ $long . 'x' x 4000, 'longest', '... of a key that is longer' ],
    [ substr($long, 1),   '',        '... of one that is shorter' ],
) {
    my ($key, $value, $name) = @$_;
    is(found($key), $value, $name . ': ' . substr $key, 0, 20);
}

is($node->get("$url?key=/app")->json->{'/app'}, 'app', 'the API gives an exact key');
is($node->get("$url?key=/application")->status, 404, '... and no other');
is($node->drop('paths', '/app/admin'), 204, 'deleting the longest');
is(found('/app/admin/users'), 'app', '... uncovers the next');
is($node->change('paths', '/app', 'changed'), 204, 'changing it');
is(found('/app/admin/users'), 'changed', '... shows');

my $answer = $node->post($url, ZoneMesh::Node::encode({ "${long}x" => 'x' }));
is($answer->status, 400, 'a longer key is refused');
is($answer->json->{error}{code}, 'KeyvalFormatError', '... with the code of a bad pair');
like($answer->json->{error}{text}, qr/invalid key.*2048.*type=prefix/, '... and a text that says why');
$node->get("/set?a=${long}x&v=x");
ok(scalar $node->wait_log(qr/can't write to keyval zone "paths".*type=prefix/), '... and logged for a variable');

# In a cluster: zones whose types differ are not shared, and both sides say so.
my @nodes = my ($first, $second) = cluster(2, not_started => 1,
    zones => 'keyval_zone zone=one:1m timeout=1h sync; keyval_zone zone=typed:1m type=prefix sync;');
my $prefix = $second->{http};
(my $ip = $prefix) =~ s/type=prefix/type=ip/;
$second->configure(http => $ip);
$_->start for @nodes;
connected(1, @nodes);
$first->add('one', 'k', 'v');
everywhere(\@nodes, 'k', 'v', 'zones of one type are shared');
ok(scalar $first->wait_log(qr/zone "typed".*type=ip, not prefix/), 'zones of two types are not: one side says so');
ok(scalar $second->wait_log(qr/zone "typed".*type=ip, not prefix/), '... and the other');
$first->add('typed', '10.0.0.0', 'v');
$first->add('one', 'later', 'v');
everywhere(\@nodes, 'later', 'v', 'the others go on');
is_deeply($second->keyvals('typed'), {}, '... and nothing was shared');
$second->quit;
$second->configure(http => $prefix)->start;
eventually_is { $second->keyvals('typed') } { '10.0.0.0' => 'v' }, 'with the same type it is shared';

done_testing;
