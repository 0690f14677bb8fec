# limit_req ... sync in an nginx that was built without a limit_req module of its own: all of it works, and what is nginx's
# is refused with a message that says so.
#
# Such an nginx is made here: a copy in which the module, its directives and its variable go by other names, so that nothing
# knows them.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $place = node(http => '');
my $bytes = ZoneMesh::Node::slurp(ZoneMesh::Node::nginx());
cmp_ok($bytes =~ s/limit_req/limit_rxq/g, '>', 5, 'an nginx without limit_req');
my $without = $place->write_file('nginx-without', $bytes);
chmod 0755, $without or die "$without: $!";
$ENV{TEST_NGINX_BINARY} = $without;
config_fails({ modules => [], http => 'limit_req_status 503;' }, qr/unknown directive "limit_req_status"/, '... really');

sub http { return { http => $_[0] } }
my $zone = 'limit_req_zone $arg_key zone=one:1m rate=1r/m sync;';
config_works(http('server { listen 127.0.0.1:%%PORT%%; return 200 "$limit_req_status"; }'), 'without limits nothing is amiss');
config_works(http($zone), 'a shared zone');
config_fails(http('limit_req_zone $arg_key zone=one:1m rate=1r/m;'), [qr/"limit_req_zone" without "sync"/, qr/--without-http_limit_req_module/], 'one of nginx\'s own');
config_fails(http("$zone limit_req zone=two;"), [qr/"limit_req"/, qr/"two"/, qr/--without-http_limit_req_module/], 'a limit of an unknown zone');
config_fails(http("$zone limit_req burst=5;"), qr/"limit_req" must have "zone" parameter/, '... or of none');
config_fails(http('limit_req_status 200;'), qr/value must be between 400 and 599/, 'a status that is none');
config_fails(http('limit_req_status 500; limit_req_status 501;'), qr/"limit_req_status" directive is duplicate/, '... or twice');
config_fails(http('limit_req_log_level debug;'), qr/invalid value "debug"/, 'an unknown level');
config_fails(http('limit_req_dry_run maybe;'), qr/invalid value "maybe" in "limit_req_dry_run" directive/, 'neither on nor off');

my $node = node(http => <<'CONF');
    limit_req_zone $arg_key zone=slow:1m rate=1r/m sync;
    limit_req_zone $arg_key zone=fast:1m rate=5r/s sync;
    limit_req_status 429;
    add_header X-Status "$limit_req_status" always;
    server {
        listen 127.0.0.1:%%PORT%%;
        limit_req_log_level warn;
        location /api   { api; }
        location /none  { alias %%PREFIX%%/page; }
        location /burst { limit_req zone=slow burst=2 nodelay; alias %%PREFIX%%/page; }
        location /other { limit_req zone=slow; limit_req_status 598; limit_req_log_level info; alias %%PREFIX%%/page; }
        location /wait  { limit_req zone=fast burst=2; alias %%PREFIX%%/page; }
        location /dry   { limit_req zone=slow; limit_req_dry_run on; alias %%PREFIX%%/page; }
        location /two   { limit_req zone=slow burst=5 nodelay; limit_req zone=fast; alias %%PREFIX%%/page; }
    }
CONF
$node->write_file('page', "a page\n");
$node->start;

sub outcome { my $answer = $node->get($_[0]); return join ' ', $answer->status, $answer->header('X-Status') // '-' }
sub told { return map { s/.*?\[(\w+)\] \d+#\d+: \*\d+ (.*?), client: .*/[$1] $2/r } $node->grep_log(qr/(?:limiting|delaying) request/) }

is(outcome('/none?key=a'), '200 -', 'no limit');
is_deeply([ map { outcome('/burst?key=a') } 1 .. 4 ], [ ('200 PASSED') x 3, '429 REJECTED' ], 'a burst, and a status from http');
is((told())[-1], '[warn] limiting requests, excess: 3.000 by zone "slow"', '... told as the server says');
is_deeply([ map { outcome('/other?key=b') } 1 .. 2 ], [ '200 PASSED', '598 REJECTED' ], 'a status of the location\'s own');
like((told())[-1], qr/^\[info\] /, '... and a level');
is_deeply([ map { outcome('/dry?key=c') } 1 .. 2 ], [ '200 PASSED', '200 REJECTED_DRY_RUN' ], 'a dry run');
is_deeply([ map { outcome('/wait?key=d') } 1 .. 3 ], [ '200 PASSED', ('200 DELAYED') x 2 ], 'delays');
like((told())[-1], qr/^\[notice\] delaying request/, '... told one level lower');
is_deeply([ map { outcome('/two?key=e') } 1 .. 2 ], [ '200 PASSED', '429 REJECTED' ], 'two limits');
is_deeply([ map { outcome('/burst?key=') } 1 .. 5 ], [ ('200 -') x 5 ], 'an empty key');
is($node->get('/api/9/http/limit_reqs/slow')->json->{rejected}, 2, 'figures');
$node->reload;
is(outcome('/burst?key=a'), '429 REJECTED', 'known after a reload');

done_testing;
