# status_zone in http: what is counted for servers and locations, how it is shown and reset, and that figures outlive
# reloads and killed workers.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

# It takes connections, and says nothing until told to.
my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => port(), Listen => 64, ReuseAddr => 1) or die $!;
my $second = port();

my $http = <<'CONF';
    keyval_zone zone=one:64k;
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        root %%PREFIX%%;
        location /api { api write=on; }
    }
    server {
        listen 127.0.0.1:%%SITE%% reuseport;
        root %%PREFIX%%;
        status_zone site;
        log_subrequest on;

        location /plain         { return 200 plain; }
        location /code/         { location ~ (?<code>\d+)$ { return 200; } location = /code/301 { return 301 /; } location = /code/404 { return 404; }
                                  location = /code/503 { return 503; } location = /code/777 { return 777 x; } }
        location /drop          { return 444; }
        location /silent        { proxy_pass http://127.0.0.1:%%SILENT%%; status_zone silent; }

        location /outer {
            status_zone outer;
            return 200 outer;
            location /outer/inherits { return 200; }
            location /outer/other    { status_zone inner; return 200; }
            location /outer/off      { status_zone off; return 200; location /outer/off/deep { return 200; } }
            location /outer/if       { if ($arg_a) { status_zone if; return 201; } return 200; }
            location /outer/limited  { limit_except GET { deny all; } }
        }
        location /from          { status_zone from; error_page 404 =200 /to; return 404; }
        location /rewritten     { status_zone from; rewrite ^ /to last; }
        location /tried         { status_zone from; try_files /nothing @to; }
        location /to            { status_zone to; return 200; }
        location @to            { status_zone to; return 200; }

        location /main          { status_zone main; auth_request /sub; mirror /sub; try_files /nothing @after; }
        location @after         { status_zone main; return 200; }
        location /sub           { internal; status_zone sub; return 200; }
        location /upload        { status_zone upload; client_max_body_size 1k; proxy_pass http://127.0.0.1:%%PORT%%/api/; }
    }
    server {
        listen 127.0.0.1:%%SITE%%;
        server_name second;
        status_zone second;
        location / { status_zone site; return 200; }
    }
    server {
        listen 127.0.0.1:%%SITE%%;
        server_name shared;
        status_zone second;
        return 200;
    }
    server {
        listen 127.0.0.1:%%SITE%%;
        server_name unseen;
        status_zone off;
        return 200;
    }
CONF
my %vars = (SITE => port(), SILENT => $silent->sockport);
my $node = node(workers => 2, vars => \%vars, http => $http)->start;

sub ask { my ($target, %given) = @_; return ZoneMesh::Http->request($vars{SITE}, $given{method} // 'GET', $target, %given)->status }
sub zone { my ($kind, $name) = @_; return $node->get("/api/9/http/${kind}_zones/$name")->json }
sub requests { return zone(@_)->{requests} }

# The difference that some requests make to a zone, in the fields that are named in `expected`.
sub makes {
    my ($kind, $zone, $expected, $name, $code) = @_;
    my $before = zone($kind, $zone);
    $code->();
    my $difference = sub {
        my $after = zone($kind, $zone);
        my %all = (
            (map { $_ => $after->{$_} - $before->{$_} } qw(requests discarded received sent)),
            (map { $_ => $after->{responses}{$_} - $before->{responses}{$_} } qw(1xx 2xx 3xx 4xx 5xx total)),
            (map { ("code $_" => $after->{responses}{codes}{$_} - ($before->{responses}{codes}{$_} // 0)) } keys %{ $after->{responses}{codes} }),
        );
        return { map { $_ => $all{$_} // 0 } keys %$expected };
    };
    # A request is counted when it ends, which may be after its answer has come.
    return eventually_is { $difference->() } $expected, $name;
}

# Shapes.

is_deeply(
    zone(server => 'site'),
    { processing => 0, requests => 0, responses => { (map { ("${_}xx" => 0) } 1 .. 5), codes => {}, total => 0 }, discarded => 0, received => 0, sent => 0 },
    'a server zone without requests'
);
is_deeply(
    zone(location => 'to'),
    { requests => 0, responses => { (map { ("${_}xx" => 0) } 1 .. 5), codes => {}, total => 0 }, discarded => 0, received => 0, sent => 0 },
    'a location zone has no requests in the making'
);
is_deeply($node->get('/api/9/http/server_zones?fields=')->json, [qw(second site)], 'names of server zones');
is_deeply($node->get('/api/9/http/location_zones/?fields=')->json, [qw(from if inner main outer silent site sub to upload)], 'names of location zones');
is_deeply($node->get('/api/9/http/server_zones?fields=processing')->json, { map { $_ => { processing => 0 } } qw(second site) }, 'chosen fields');
ok(!grep({ /status/ } keys %{ $node->get('/api/9/slabs')->json }), 'they are none of the slab zones');
is($node->get('/api/9/http/server_zones/to')->status, 404, 'a location zone is no server zone');
is($node->get('/api/9/http/location_zones/none')->json->{error}{code}, 'LocationZoneNotFound', 'an unknown location zone');
is($node->get('/api/9/http/server_zones/none')->json->{error}{code},   'ServerZoneNotFound',   'an unknown server zone');
is_deeply($node->get('/api/9/http/location_zones/outer?fields=')->json, [qw(requests responses discarded received sent)], 'its fields');

# What is counted for a server.

makes(server => 'site', { requests => 1, '2xx' => 1, total => 1, 'code 200' => 1, discarded => 0 }, 'a request', sub { is(ask('/plain'), 200) });
for my $code (301, 404, 503) {
    my $class = int($code / 100) . 'xx';
    makes(server => 'site', { requests => 1, $class => 1, total => 1, "code $code" => 1 }, "an answer of $code", sub { is(ask("/code/$code"), $code) });
}
makes(server => 'site', { requests => 1, '5xx' => 0, '4xx' => 0, total => 1 }, 'an answer that has no class', sub { is(ask('/code/777'), 777) });
makes(server => 'site', { requests => 1, total => 0, discarded => 1 }, 'a request that gets no answer', sub { eval { ask('/drop') } });
makes(server => 'site', { requests => 3, '2xx' => 3 }, 'requests over one connection', sub {
    my $socket = tcp($vars{SITE});
    print {$socket} "GET /plain HTTP/1.1\r\nHost: x\r\n\r\n" x 2, "GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    my ($all) = read_all($socket);
    is(() = $all =~ /200 OK/g, 3, 'three answers');
});
{
    my $request = "POST /upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n" . 'b' x 1000;
    my $before = zone(server => 'site');
    my $socket = tcp($vars{SITE});
    print {$socket} $request;
    my ($answer) = read_all($socket);
    close $socket;    # or nginx may linger, with the request still in the making
    eventually_is { my $now = zone(server => 'site'); [ map { $now->{$_} - $before->{$_} } qw(received sent) ] }
        [ length $request, length $answer ], 'bytes in both directions, to the byte';
}
makes(server => 'site', { requests => 1, '4xx' => 1, 'code 400' => 1 }, 'a request that is none counts for the default server', sub {
    my $socket = tcp($vars{SITE});
    print {$socket} "GET\x01nonsense\r\n\r\n";
    like((read_all($socket))[0], qr/400 Bad Request/, 'it is refused');
});
makes(server => 'site', { requests => 1, discarded => 1, '4xx' => 0 }, 'a client that goes away in the middle of its header', sub {
    my $socket = tcp($vars{SITE});
    print {$socket} "GET /plain HT";
    close $socket;
});
makes(server => 'second', { requests => 2, '2xx' => 2 }, 'two servers with one zone add up', sub {
    is(ask('/', headers => { Host => $_ }), 200, "server $_") for qw(second shared);
});
is(requests(location => 'site'), 1, 'a location zone of the name of a server zone is another');
makes(server => 'site', { requests => 0 }, 'a server with "off" is not counted', sub { is(ask('/', headers => { Host => 'unseen' }), 200) });

# What is counted for a location: where a request ends.

my @locations = (
    [ '/outer',           { outer => 1 },                       200, 'a location' ],
    [ '/outer/inherits',  { outer => 1 },                       200, 'a location within takes the zone over' ],
    [ '/outer/other',     { outer => 0, inner => 1 },           200, '... unless it has its own' ],
    [ '/outer/off',       { outer => 0, inner => 0 },           200, '... or "off"' ],
    [ '/outer/off/deep',  { outer => 0, inner => 0 },           200, '... which is taken over, too' ],
    [ '/outer/if',        { outer => 1, if => 0 },              200, 'an if that does not apply' ],
    [ '/outer/if?a=1',    { outer => 0, if => 1 },              201, 'an if that does' ],
    [ '/from',            { from  => 0, to => 1 },              200, 'an error page of another location' ],
    [ '/rewritten',       { from  => 0, to => 1 },              200, 'a rewrite to another location' ],
    [ '/tried',           { from  => 0, to => 1 },              200, 'a named location' ],
    [ '/main',            { main  => 1, sub => 0 },             200, 'subrequests are not counted' ],
    [ '/plain',           { main  => 0, from => 0, outer => 0 }, 200, 'a location without a zone' ],
);
for (@locations) {
    my ($target, $expected, $status, $name) = @$_;
    my %before = map { $_ => requests(location => $_) } keys %$expected;
    my $site   = requests(server => 'site');
    is(ask($target), $status, "$name: it is answered");
    eventually_is {
        my %now = map { $_ => requests(location => $_) - $before{$_} } keys %$expected;
        [ requests(server => 'site') - $site, \%now ]
    }
    [ 1, $expected ], $name;
}
makes(location => 'outer', { requests => 1, '4xx' => 1 }, 'limit_except belongs to its location', sub {
    is(ask('/outer/limited', method => 'DELETE'), 403);
});
makes(location => 'upload', { requests => 1, 'code 413' => 1 }, 'a body that is too large', sub {
    is(ask('/upload', method => 'POST', body => 'x' x 2000), 413);
});

# In the making.

sub held {
    my ($count) = @_;
    my (@clients, @servers);
    for (1 .. $count) {
        my $client = tcp($vars{SITE});
        print {$client} "GET /silent HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        push @clients, $client;
        # One after the other: workers don't keep the order.
        push @servers, scalar $silent->accept;
    }
    return (\@clients, \@servers);
}
{
    my $before = zone(server => 'site');
    my ($clients, $servers) = held(3);
    eventually_is { zone(server => 'site')->{processing} } 3, 'requests that are being processed';
    is(zone(server => 'site')->{requests} - $before->{requests}, 3, '... are counted already');
    is(zone(server => 'site')->{responses}{total}, $before->{responses}{total}, '... and not answered yet');
    is(requests(location => 'silent'), 0, '... nor counted for their location');
    close $clients->[0];
    eventually_is { zone(server => 'site')->{discarded} - $before->{discarded} } 1, 'a client that goes away before the answer';
    eventually_is { zone(server => 'site')->{processing} } 2, '... leaves';
    print { $servers->[1] } "HTTP/1.0 204 No Content\r\n\r\n";
    close $servers->[1];
    eventually_is { zone(location => 'silent')->{responses}{codes} } { 204 => 1 }, 'an answer';

    # A reload leaves the rest to an old worker.
    my $requests = requests(server => 'site');
    $node->reload;
    is(zone(server => 'site')->{processing}, 1, 'a reload: what an old worker has in the making is still shown');
    is(requests(server => 'site'), $requests, '... and figures go on');
    is(ask('/plain'), 200);
    eventually_is { requests(server => 'site') } $requests + 1, '... from where they were';
    print { $servers->[2] } "HTTP/1.0 500 Oops\r\n\r\n";
    close $servers->[2];
    eventually_is { zone(location => 'silent')->{responses}{codes} } { 204 => 1, 500 => 1 }, 'what an old worker ends is counted';
    eventually_is { zone(server => 'site')->{processing} } 0, '... and leaves';
    eventually_is { scalar $node->old_workers } 0, 'old workers end';
}
{
    my ($clients, $servers) = held(8);
    eventually_is { zone(server => 'site')->{processing} } 8, 'requests in two workers';
    my $requests = requests(server => 'site');
    allow_log(qr/exited on signal 9/);
    $node->kill_worker($_) for $node->workers;
    eventually_is { zone(server => 'site')->{processing} } 0, 'what killed workers had in the making is not shown any more';
    is(requests(server => 'site'), $requests, '... but stays counted');
    makes(server => 'site', { requests => 1, '2xx' => 1 }, 'counting goes on', sub { is(ask('/plain'), 200) });
    is(zone(server => 'site')->{processing}, 0, '... with nothing in the making');
}
{
    # An old worker that is killed after a reload has no successor.
    my ($clients, $servers) = held(2);
    eventually_is { zone(server => 'site')->{processing} } 2, 'requests before a reload';
    $node->reload;
    my @old = $node->old_workers;
    kill 'KILL', @old;
    $node->gone(@old);
    eventually_is { zone(server => 'site')->{processing} } 0, 'old workers that are killed leave nothing in the making';
}

# Every worker counts.

{
    my %pids;
    my $before = zone(server => 'site')->{responses}{codes}{200};
    my $n = 200;
    for (1 .. $n) { ask('/plain') }
    eventually_is { zone(server => 'site')->{responses}{codes}{200} - $before } $n, 'requests over all workers add up';
}

# Reset.

{
    my $locations = $node->get('/api/9/http/location_zones')->json;
    my $second    = zone(server => 'second');
    my ($clients, $servers) = held(1);
    eventually_is { zone(server => 'site')->{processing} } 1, 'a request in the making';
    is($node->delete('/api/9/http/server_zones/site')->status, 204, 'DELETE');
    is_deeply(
        zone(server => 'site'),
        { processing => 1, requests => 0, responses => { (map { ("${_}xx" => 0) } 1 .. 5), codes => {}, total => 0 }, discarded => 0, received => 0, sent => 0 },
        '... sets figures to zero, but for what is in the making'
    );
    is_deeply(zone(server => 'second'), $second, '... of this zone only');
    close $clients->[0];
    eventually_is { zone(server => 'site')->{processing} } 0, '... which ends';
    is(ask('/plain'), 200);
    eventually_is { my $zone = zone(server => 'site'); [ $zone->{requests}, $zone->{responses}{codes} ] } [ 1, { 200 => 1 } ], 'counting begins anew';
    is($node->delete('/api/9/http/location_zones/outer/')->status, 204, 'DELETE of a location zone');
    is(requests(location => 'outer'), 0, '... resets it');
    is(requests(location => 'to'), $locations->{to}{requests}, '... and no other');
    is($node->delete('/api/9/http/server_zones/none')->status, 404, 'DELETE of none');
    is($node->delete('/api/9/http/server_zones/')->status, 405, 'DELETE of all is not there');
}

# Reloads that add and remove zones.

{
    my $requests = requests(location => 'to');
    (my $changed = $http) =~ s/status_zone inner;/status_zone brand\/new;/;
    $node->reload(http => $changed);
    is(requests(location => 'to'), $requests, 'a reload with other zones keeps those that stay');
    is($node->get('/api/9/http/location_zones/inner')->status, 404, '... drops what is gone');
    is(ask('/outer/other'), 200);
    eventually_is { requests(location => 'brand%2Fnew') } 1, '... and counts for a new one, whose name has a slash';
    $node->reload(http => $http =~ s/^.*status_zone site;$//mr);
    is($node->get('/api/9/http/server_zones/site')->status, 404, 'a server zone that is gone');
    is(ask('/outer'), 200);
    eventually_is { requests(location => 'outer') } 1, 'locations are counted without their server';
    $node->reload(http => $http =~ s/status_zone [^;]+;//gr);
    is_deeply($node->get("/api/9/http/$_")->json, {}, "none left: $_") for qw(server_zones location_zones);
    is(ask('/plain'), 200, '... and requests are answered');
}

# Mistakes.

sub server { return { http => "server { listen 127.0.0.1:%%PORT%%; $_[0] }" } }
config_fails(server('status_zone;'),                      qr/number of arguments in "status_zone"/, 'no name');
config_fails(server('status_zone a b;'),                  qr/number of arguments in "status_zone"/, 'two names');
config_fails(server('status_zone "";'),                   [ qr/"status_zone"/, qr/empty/ ], 'an empty name');
config_fails(server('status_zone a; status_zone b;'),     qr/"status_zone" is duplicate/, 'twice in a server');
config_fails(server('location / { status_zone a; status_zone off; }'), qr/"status_zone" is duplicate/, 'twice in a location');
config_fails({ http => 'status_zone a;' },                qr/"status_zone" directive is not allowed here/, 'outside of servers');
config_fails(server('if ($uri) { status_zone a; }'),      qr/"status_zone" directive is not allowed here/, 'in an if of a server');
config_fails(server('location / { limit_except GET { status_zone a; } }'), qr/"status_zone" directive is not allowed here/, 'in limit_except');
config_works(server('status_zone a; location / { status_zone a; if ($uri) { status_zone b; } }'), 'as it should be');
config_works({ http => join '', map { "server { listen 127.0.0.1:%%PORT%%; server_name s$_; status_zone z$_; }" } 1 .. 300 }, 'many zones');

done_testing;
