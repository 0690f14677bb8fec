# Two limits of which each is nginx's own or shared, in all four ways: what a level inherits from the http block, and requests
# that come by several locations, must be what they are with two of nginx's own.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

# A and B stand for the kinds. One request a minute: nothing drains while a case lasts.
my $http = <<'CONF';
    default_type text/plain;
    limit_req_zone $arg_key   zone=A/first:1m  rate=1r/m SYNCA;
    limit_req_zone $arg_other zone=B/second:1m rate=1r/m SYNCB;
    limit_req_zone $arg_key   zone=A/fast:1m   rate=5r/s SYNCA;
    limit_req_zone $arg_key   zone=B/slower:1m rate=4r/s SYNCB;
    limit_req zone=A/first burst=1 nodelay;
    limit_req_status 429;
    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status "$limit_req_status" always;
        location /inherits { alias %%PREFIX%%/page; location /inherits/deep { alias %%PREFIX%%/page; } }
        location /own      { limit_req zone=B/second burst=2 nodelay; alias %%PREFIX%%/page; }
        location /both     { limit_req zone=A/first burst=3 nodelay; limit_req zone=B/second; alias %%PREFIX%%/page; }
        location /landing  { limit_req zone=B/second burst=1 nodelay; limit_req zone=A/first burst=5 nodelay; alias %%PREFIX%%/page; }
        location /moved    { limit_req zone=A/first; limit_req zone=B/second; error_page 429 =200 /landing; alias %%PREFIX%%/page; }
        location /tried    { limit_req zone=A/first; limit_req zone=B/second burst=1 nodelay; try_files /nothing @named; }
        location @named    { limit_req zone=B/second; limit_req zone=A/first burst=5 nodelay; root %%PREFIX%%; try_files /page =404; }
        location /main     { limit_req zone=A/first burst=1 nodelay; limit_req zone=B/second burst=1 nodelay; auth_request /sub; alias %%PREFIX%%/page; }
        location /unasked  { limit_req zone=A/fast; auth_request /sub; alias %%PREFIX%%/page; }
        location /sub      { internal; limit_req zone=B/second; limit_req zone=A/first; alias %%PREFIX%%/page; }
        location /wait     { limit_req zone=A/fast burst=5; limit_req zone=B/slower burst=5; alias %%PREFIX%%/page; }
        location /longer   { limit_req zone=B/slower burst=5; limit_req zone=A/fast burst=5; alias %%PREFIX%%/page; }
    }
    server {
        listen 127.0.0.1:%%PORT%%;
        server_name own;
        limit_req zone=B/second;
        add_header X-Status "$limit_req_status" always;
        location / { alias %%PREFIX%%/; }
    }
CONF

# Each case: what is asked for, one after the other.
my @cases = (
    [ 'inherited from http by a location',         ('/inherits?key=KEY') x 4 ],
    [ '... and by one within',                     ('/inherits/deep?key=KEY') x 4 ],
    [ 'a location with its own limit',             ('/own?key=KEY') x 3, ('/own?key=KEY&other=KEY') x 4 ],
    [ 'a server with its own limit',               map { [ $_, 'own' ] } ('/page?key=KEY') x 3, ('/page?other=KEY') x 2 ],
    [ 'both at once',                              ('/both?key=KEY&other=KEY') x 3, ('/both?key=KEY') x 4, ('/both?other=KEY') x 2 ],
    [ 'error_page',                                ('/moved?key=KEY&other=KEY') x 4, ('/landing?key=KEY&other=KEY') x 3 ],
    [ 'try_files and a named location',            ('/tried?key=KEY&other=KEY') x 4, ('/own?other=KEY') x 3 ],
    [ 'auth_request behind limits',                ('/main?key=KEY&other=KEY') x 4, ('/both?key=KEY') x 3 ],
    [ 'limits of a subrequest alone',              ('/unasked?other=KEY') x 3, ('/own?other=KEY') x 3 ],
);

my %said;
for my $kinds ([qw(plain plain)], [qw(plain sync)], [qw(sync plain)], [qw(sync sync)]) {
    my %kind = (A => $kinds->[0], B => $kinds->[1]);
    my $conf = $http;
    $conf =~ s/\b([AB])(?=\/)/$kind{$1}/g;
    $conf =~ s/SYNC([AB])/$kind{$1} eq 'sync' ? 'sync' : ''/ge;
    my $name = join ' and ', @$kinds;
    my $node = node(name => join('-', @$kinds), workers => 1, http => $conf);
    $node->write_file('page', "a page\n");
    $node->start;
    my ($worker) = $node->workers;

    my $ask = sub { my ($target, $host) = @_; return ZoneMesh::Http->request($node->port, 'GET', $target, headers => { Host => $host // 'localhost' }) };
    for my $at (0 .. $#cases) {
        my ($what, @targets) = @{ $cases[$at] };
        my @got = map { my ($target, $host) = ref ? @$_ : $_; $ask->($target =~ s/KEY/k$at/gr, $host) } @targets;
        $said{$name}{$what} = [ map { join ' ', $_->status, $_->header('X-Status') // '-' } @got ];
    }

    # Of a client that waits for both and goes away nothing stays behind; who waits behind it is answered.
    for my $target ('/wait', '/longer') {
        $ask->("$target?key=gone$target");
        my $gone = tcp($node->port);
        print {$gone} "GET $target?key=gone$target HTTP/1.1\r\nHost: a\r\n\r\n";
        ok(wait_for(sub { $node->grep_log(qr/delaying request.*gone$target/) }), "$name, $target: a second one waits");
        close $gone;
        ok(scalar $node->wait_log(qr/client prematurely closed connection.*gone$target/), '... and goes away');
        my $answer = $ask->("$target?key=gone$target");
        is(join(' ', $answer->status, $answer->header('X-Status')), '200 DELAYED', '... and a third one waits and is answered');
    }
    is_deeply([ $node->workers ], [$worker], '... by the worker that was there');
    $node->stop;
}

my $own = delete $said{'plain and plain'};
for my $name (sort keys %said) {
    is_deeply($said{$name}{ $_->[0] }, $own->{ $_->[0] }, "$name: $_->[0]") or diag(explain([ $said{$name}{ $_->[0] }, $own->{ $_->[0] } ])) for @cases;
}
# That these cases tell anything: some are refused, some not.
for (@cases) {
    my %met = map { /^\S+ (.*)/; $1 => 1 } @{ $own->{ $_->[0] } };
    cmp_ok(keys %met, '>', 1, "$_->[0]: not all end alike");
}

done_testing;
