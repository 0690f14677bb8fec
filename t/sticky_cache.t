# Sessions and answers that come from nginx's cache: those begin none and move none. And servers that fail a number of times
# before they are given up.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Backends;

my @ports = map { port() } 1 .. 2;
my $files = node(name => 'backends', modules => [], port => $ports[0], http => join '', map { "
    server {
        listen 127.0.0.1:$ports[$_];
        etag on;
        location = /login   { add_header Set-Cookie session=\$arg_s; return 200 $_; }
        location /tagged/   { add_header Set-Cookie session=\$arg_s always; add_header X-Server $_ always; alias %%PREFIX%%/page/; }
        location /redirect/ { add_header Set-Cookie session=\$arg_s; add_header X-Accel-Redirect /inside/; return 200 $_; }
        location /fail      { return 503 $_; }
        location /          { add_header X-Server $_; return 200 $_; }
    }" } 0, 1);
mkdir $files->prefix . '/page';
$files->write_file('page/one', 'a page');
$files->start;

my $learn = 'sticky learn create=$upstream_cookie_session lookup=$cookie_session';
my $servers = "server 127.0.0.1:$ports[0]; server 127.0.0.1:$ports[1];";
my $front = node(name => 'front', http => "
    proxy_cache_path cache keys_zone=cache:1m use_temp_path=off;
    proxy_cache_key \$uri;
    proxy_connect_timeout 2s;
    upstream end    { zone end 64k;    $servers $learn zone=end-sessions:64k; }
    upstream head   { zone head 64k;   $servers $learn zone=head-sessions:64k header; }
    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Cache \$upstream_cache_status always;
        add_header X-Asked \$upstream_addr always;
        location /inside/ { internal; return 200 inside; }
        " . join('', map { "
        location /$_/ { proxy_pass http://$_/; }
        # Caches whatever comes, as it must to cache what sets cookies.
        location /$_/cached/ { proxy_pass http://$_/; proxy_cache cache; proxy_cache_valid 1h; proxy_ignore_headers Set-Cookie; }
        location /$_/tagged/ { proxy_pass http://$_/tagged/; proxy_cache cache; proxy_cache_valid 1s; proxy_ignore_headers Set-Cookie; proxy_cache_revalidate on; }
        location /$_/redirect/ { proxy_pass http://$_/redirect/; proxy_cache cache; proxy_cache_valid 1h; proxy_ignore_headers Set-Cookie; }
        location /$_/stale/  { proxy_pass http://$_/; proxy_cache cache; proxy_cache_valid 1s; proxy_ignore_headers Set-Cookie; proxy_cache_use_stale http_503; }
        " } qw(end head)) . '
    }');
$front->worker_folder('cache');
$front->start;

sub asked {
    my ($path, $session) = @_;
    my $answer = $front->get($path, headers => defined $session ? { Cookie => "session=$session" } : {});
    return ($answer->header('X-Cache') // '', $answer->body, $answer->header('X-Asked') // '');
}

# The server that a session leads to, or both: there is none.
sub leads_to {
    my ($name, $session) = @_;
    my %seen = map { (with($front, $session, "/$name/")) => 1 } 1 .. 6;
    return join '', sort keys %seen;
}

for my $name (qw(end head)) {
    # A hit makes no request: nothing is looked up, nothing begins.
    my ($state, $first) = asked("/$name/cached/login?s=$name-first");
    is($state, 'MISS', "$name: a response that begins a session comes to the cache");
    is(leads_to($name, "$name-first"), $first, "$name: and the session is there");
    my $other = 1 - $first;
    my ($of_other) = grep { login($front, $_, "/$name/") eq $other } map { "$name-other$_" } 1 .. 20;
    ok($of_other, "$name: a session on the other server");
    is(join(' ', asked("/$name/cached/login?s=$name-second", $of_other)), "HIT $first ", "$name: the next gets it from the cache, whoever asks");
    is(leads_to($name, "$name-second"), '01', "$name: and begins no session");
    is(leads_to($name, $of_other), $other, "$name: nor moves one");
    is(leads_to($name, "$name-first"), $first, "$name: nor that of the response in the cache");

    # A response that is found to be still good.
    (undef, undef, my $filled) = asked("/$name/tagged/one?s=$name-filled");
    my ($at) = grep { "127.0.0.1:$ports[$_]" eq $filled } 0, 1;
    is(leads_to($name, "$name-filled"), $at, "$name: a response with an ETag begins a session");
    my ($from_other) = grep { login($front, $_, "/$name/") ne $at } map { "$name-tagged$_" } 1 .. 20;
    my ($how, $body, $who);
    ok(wait_for(sub { ($how, $body, $who) = asked("/$name/tagged/one", $from_other); $how eq 'REVALIDATED' }), "$name: it is asked for again, by another session");
    is($who, '127.0.0.1:' . $ports[ 1 - $at ], "$name: on that one's server");
    is($body, 'a page', "$name: and still good");
    is(leads_to($name, "$name-filled"), $at, "$name: the session that it began once stays where it is");
    is(leads_to($name, $from_other), 1 - $at, "$name: and so does the one that asked");

    # A redirect inside nginx, where there is a cache.
    is((asked("/$name/redirect/?s=$name-in"))[1], 'inside', "$name: X-Accel-Redirect");
    my $in = leads_to($name, "$name-in");
    like($in, qr/^[01]$/, "$name: begins a session");

    # What is given because the server fails.
    my ($failing) = grep { login($front, $_, "/$name/") eq '0' } map { "$name-stale$_" } 1 .. 20;
    my $page = "/$name/stale/fail";
    is((asked($page, $failing))[1] =~ /^[01]$/ ? 'answered' : '', 'answered', "$name: an error is an answer as well");
}

# A server that fails is given up after max_fails within fail_timeout, and not asked until that is over. Its sessions move at the
# first failure that another server makes good.
{
    my %backends = backends(qw(a b));
    my ($a, $b)  = map { address_of($backends{$_}) } qw(a b);
    my $given = node(name => 'fails', http => "
        proxy_connect_timeout 2s;
        upstream thrice { zone thrice 64k; server $a max_fails=3 fail_timeout=3s; server $b max_fails=3 fail_timeout=3s; $learn zone=thrice-sessions:64k; }
        upstream once   { zone once 64k; server $a fail_timeout=3s route=a; server $b route=b; sticky route \$arg_route; }
        upstream never  { zone never 64k; server $a max_fails=0 route=a; server $b route=b; sticky route \$arg_route; }
        server {
            listen 127.0.0.1:%%PORT%%;
            add_header X-Asked \$upstream_addr always;
            location /thrice/ { proxy_pass http://thrice/; }
            location /next/   { proxy_pass http://thrice/; proxy_next_upstream error http_503; }
            location /once/   { proxy_pass http://once/; }
            location /never/  { proxy_pass http://never/; }
        }")->start;
    my @sessions = (grep { login($given, $_, '/thrice/') eq 'a' } map { "t$_" } 1 .. 20)[ 0 .. 4 ];
    my $tell = sub { my ($path, $session) = @_; return $given->get($path, headers => { Cookie => "session=$session" })->header('X-Asked') };
    is(with($given, $sessions[4], '/thrice/', target => 'fail'), 'a', 'an error that is passed on');
    is(with($given, $sessions[4], '/thrice/'), 'a', '... leaves the session where it is');
    $backends{a}->stop;
    my @asked = map { $tell->('/thrice/', $_) } @sessions;
    is_deeply(\@asked, [ ("$a, $b") x 3, ($b) x 2 ], 'max_fails=3: three sessions ask the server that is away first, then it is given up');
    is(join(' ', map { $tell->('/thrice/', $_) } @sessions), join(' ', ($b) x 5), '... and all of them have moved');
    is(join('|', map { $given->get('/once/?route=a')->header('X-Asked') } 1 .. 3), "$a, $b|$b|$b", 'max_fails=1: one request asks it');
    is(join('|', map { $given->get('/never/?route=a')->header('X-Asked') } 1 .. 3), join('|', ("$a, $b") x 3), 'max_fails=0: each does');
    $backends{a}->start;
    eventually_is { $given->get('/once/?route=a')->header('X-Asked') } $a, 'fail_timeout is over: who is bound to it goes there again', 15;
    is(join(' ', map { $tell->('/thrice/', $_) } @sessions), join(' ', ($b) x 5), '... and learned sessions stay where they moved to');
    my ($moves) = grep { login($given, $_, '/thrice/') eq 'a' } map { "u$_" } 1 .. 20;
    is($tell->('/next/fail', $moves), "$a, $b", 'proxy_next_upstream http_503: both are asked');
    is(with($given, $moves, '/thrice/'), 'b', '... and the session is with the one whose answer was given');
}

done_testing;
