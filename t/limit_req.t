# limit_req on zones with `sync` against nginx's own, in one configuration: each case stands there twice, once with zones
# of nginx's and once with zones that are shared, and answers, $limit_req_status and log lines must be the same.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

# KIND stands for the name of the kind, SYNC for what makes a zone shared. Slow zones are those in which nothing drains
# while a case lasts.
my $zones = <<'CONF';
    limit_req_zone $arg_key              zone=KIND/slow:1m  rate=1r/m SYNC;
    limit_req_zone $arg_other            zone=KIND/other:1m rate=1r/m SYNC;
    limit_req_zone $arg_key              zone=KIND/fast:1m  rate=5r/s SYNC;
    limit_req_zone $arg_key              zone=KIND/faster:1m rate=20r/s SYNC;
    limit_req_zone $binary_remote_addr   zone=KIND/all:1m   rate=1r/m SYNC;
    limit_req_zone "a constant"          zone=KIND/one:1m   rate=1 SYNC;
    limit_req_zone "LONG"                zone=KIND/long:1m  rate=1r/m SYNC;
    limit_req_zone "HUGE"                zone=KIND/huge:32k rate=1r/m SYNC;
CONF
# With ?long=1 a key of 66,000 bytes: nginx says so when it asks for it. With ?huge=1 one for which its zone is too small.
$zones =~ s/LONG/'$long' x 22/e;
$zones =~ s/HUGE/'$huge' x 20/e;
my $long = join '', map { "map \$arg_$_ \$$_ { default ''; 1 '" . 'x' x 3000 . "'; }\n" } qw(long huge);
my $server = <<'CONF';
    server {
        listen 127.0.0.1:%%KIND%%;
        add_header X-Status "$limit_req_status" always;
        location /alone   { limit_req zone=KIND/slow; alias %%PREFIX%%/page; }
        location /burst   { limit_req zone=KIND/slow burst=2 nodelay; alias %%PREFIX%%/page; }
        location /order   { limit_req nodelay burst=1 zone=KIND/slow; alias %%PREFIX%%/page; }
        location /status  { limit_req zone=KIND/slow; limit_req_status 429; limit_req_log_level warn; alias %%PREFIX%%/page; }
        location /dry     { limit_req zone=KIND/slow; limit_req_dry_run on; alias %%PREFIX%%/page; }
        location /dry2    { limit_req zone=KIND/slow burst=2; limit_req_dry_run on; limit_req_log_level notice; alias %%PREFIX%%/page; }
        location /wait    { limit_req zone=KIND/fast burst=2; alias %%PREFIX%%/page; }
        location /partly  { limit_req zone=KIND/fast burst=3 delay=2; limit_req_log_level info; alias %%PREFIX%%/page; }
        location /two     { limit_req zone=KIND/slow burst=3 nodelay; limit_req zone=KIND/other burst=1 nodelay; alias %%PREFIX%%/page; }
        location /longest { limit_req zone=KIND/faster burst=5; limit_req zone=KIND/fast burst=5; alias %%PREFIX%%/page; }
        location /const   { limit_req zone=KIND/one burst=1 nodelay; alias %%PREFIX%%/page; }
        location /none    { alias %%PREFIX%%/page; }
        location /order1  { limit_req zone=KIND/slow; limit_req zone=KIND/long; alias %%PREFIX%%/page; }
        location /order2  { limit_req zone=KIND/long; limit_req zone=KIND/slow; alias %%PREFIX%%/page; }
        location /huge    { limit_req zone=KIND/huge; limit_req zone=KIND/slow burst=9 nodelay; alias %%PREFIX%%/page; }
        location /huge2   { limit_req zone=KIND/slow burst=9 nodelay; limit_req zone=KIND/huge; alias %%PREFIX%%/page; }
        location /hugedry { limit_req zone=KIND/huge; limit_req zone=KIND/slow burst=9 nodelay; limit_req_dry_run on; alias %%PREFIX%%/page; }

        location /main    { limit_req zone=KIND/slow; auth_request /sub; alias %%PREFIX%%/page; }
        location /submain { auth_request /sub; alias %%PREFIX%%/page; }
        location /sub     { internal; limit_req zone=KIND/slow burst=1 nodelay; alias %%PREFIX%%/page; }
        location /moved   { limit_req zone=KIND/slow; error_page 503 =200 /landing; alias %%PREFIX%%/page; }
        location /landing { limit_req zone=KIND/slow; alias %%PREFIX%%/page; }
        location /tried   { limit_req zone=KIND/slow; try_files /nothing @named; }
        location @named   { limit_req zone=KIND/slow burst=5 nodelay; root %%PREFIX%%; try_files /page =404; }
    }
    server {
        listen 127.0.0.1:%%KIND%%;
        server_name inherits;
        limit_req zone=KIND/slow burst=1 nodelay;
        limit_req_status 598;
        add_header X-Status "$limit_req_status" always;
        location /inherits { alias %%PREFIX%%/page; location /inherits/deep { alias %%PREFIX%%/page; } }
        location /own      { limit_req zone=KIND/slow burst=2 nodelay; alias %%PREFIX%%/page; }
    }
CONF

# A level with limits of one kind inherits none of the other; several of both hold at once.
my $mixed = <<'CONF';
    server {
        listen 127.0.0.1:%%PORT%%;
        limit_req zone=plain/all;
        add_header X-Status "$limit_req_status" always;
        location /api     { limit_req zone=sync/slow; api write=on; }
        location /sync    { limit_req zone=sync/slow burst=2 nodelay; alias %%PREFIX%%/page; }
        location /strict  { limit_req zone=plain/slow burst=3 nodelay; limit_req zone=sync/other burst=1 nodelay; alias %%PREFIX%%/page; }
        location /stricter { limit_req zone=sync/slow burst=3 nodelay; limit_req zone=plain/other burst=1 nodelay; alias %%PREFIX%%/page; }
        location /dry     { limit_req zone=sync/slow burst=3 nodelay; limit_req zone=plain/other; limit_req_dry_run on; alias %%PREFIX%%/page; }
        location /drier   { limit_req zone=sync/slow; limit_req zone=plain/other burst=3 nodelay; limit_req_dry_run on; alias %%PREFIX%%/page; }
        location /huge    { limit_req zone=plain/fast burst=5; limit_req zone=sync/huge; alias %%PREFIX%%/page; }
        location /long    { limit_req zone=plain/faster burst=5; limit_req zone=sync/fast burst=5; alias %%PREFIX%%/page; }
        location /longer  { limit_req zone=plain/fast burst=5; limit_req zone=sync/faster burst=5; alias %%PREFIX%%/page; }
    }
    server {
        listen 127.0.0.1:%%PORT%%;
        server_name other;
        limit_req zone=sync/all;
        location /plain { limit_req zone=plain/slow burst=2 nodelay; alias %%PREFIX%%/page; }
        location /off   { alias %%PREFIX%%/page; }
    }
CONF

sub of { my ($text, $kind) = @_; my $sync = $kind eq 'sync' ? 'sync' : ''; return $text =~ s/KIND/$kind/gr =~ s/SYNC/$sync/gr }
my %port = (plain => port(), sync => port());
# Servers first: so each `limit_req` stands before its zone.
my $node = node(
    vars => { %port },
    http => "default_type text/plain;\n$long" . join('', map { of($server, $_) } qw(plain sync)) . $mixed . join('', map { of($zones, $_) } qw(plain sync)),
);
$node->write_file('page', "a page\n");
$node->start;

my $keys = 0;
sub ask { my ($port, $target, $host) = @_; return ZoneMesh::Http->request($port, 'GET', $target, headers => { Host => $host // 'localhost' }) }
sub outcome { my $answer = ask(@_); return join ' ', $answer->status, $answer->header('X-Status') // '-' }

# The lines of limits that a case has made, with the parts that differ from one to the other kind or run to run told alike.
sub lines {
    my ($from) = @_;
    my @lines = $node->log_lines;
    return map { s{.*?\[(\w+)\] \d+#\d+: \*\d+ }{[$1] }r =~ s{"(?:plain|sync)/}{"}r =~ s{excess: \K(\d+\.\d+)}{sprintf '%.0f', $1}er =~ s{, client: .*}{}r }
        grep { /(?:limiting|delaying) request/ } @lines[$from .. $#lines];
}

# Runs a case with both kinds: outcomes and lines must agree; gives what they were.
sub same {
    my ($name, @targets) = @_;
    my %said;
    for my $kind (qw(plain sync)) {
        my $key  = "k$keys";
        my $from = () = $node->log_lines;
        my @got  = map { my ($target, $host) = ref ? @$_ : $_; outcome($port{$kind}, $target =~ s/KEY/$key/r, $host) } @targets;
        $said{$kind} = [ \@got, [ lines($from) ] ];
    }
    $keys++;
    is_deeply($said{sync}, $said{plain}, "$name: as nginx does it") or diag(explain(\%said));
    return $said{sync};
}

# One after the other, with nothing draining.
is_deeply(same('without a burst', ('/alone?key=KEY') x 3)->[0], [ '200 PASSED', ('503 REJECTED') x 2 ], '... one, and no more');
is_deeply(same('a burst', ('/burst?key=KEY') x 5)->[0], [ ('200 PASSED') x 3, ('503 REJECTED') x 2 ], '... one and the burst');
same('parameters in another order', ('/order?key=KEY') x 3);
my $said = same('status and level', ('/status?key=KEY') x 2);
is_deeply($said->[1], ['[warn] limiting requests, excess: 1 by zone "slow"'], '... in the words of nginx');
is($said->[0][1], '429 REJECTED', '... with the status that was asked for');
$said = same('a dry run', ('/dry?key=KEY') x 3);
is_deeply($said->[0], [ '200 PASSED', ('200 REJECTED_DRY_RUN') x 2 ], '... refuses nothing');
$said = same('a dry run with delays', ('/dry2?key=KEY') x 5);
is_deeply($said->[0], [ '200 PASSED', ('200 DELAYED_DRY_RUN') x 2, ('200 REJECTED_DRY_RUN') x 2 ], '... delays nothing');
is_deeply([ map { /^\[(\w+)\]/ } @{ $said->[1] } ], [ qw(info info notice notice) ], '... and tells delays one level lower');
same('no key', ('/alone?key=') x 3, ('/none') x 2);
same('a constant key', ('/const') x 3);
same('two zones, of which one has no key', ('/two?key=KEY') x 5, ('/two?other=KEY') x 3);
$said = same('two zones', ('/two?key=KEY&other=KEY') x 4, ('/two?key=KEY') x 3);
is_deeply($said->[0], [ ('200 PASSED') x 2, ('503 REJECTED') x 2, ('200 PASSED') x 2, '503 REJECTED' ], '... what one refuses does not count in the other');


# Keys are asked for in the order of the limits, and none after a refusal.
for my $target ('/order1?key=KEY&long=1', '/order2?key=KEY&long=1') {
    my %asked;
    for my $kind (qw(plain sync)) {
        my $from = () = $node->log_lines;
        my @got  = map { outcome($port{$kind}, $target =~ s/KEY/k$keys/r) } 1 .. 3;
        my @lines = $node->log_lines;
        $asked{$kind} = [ @got, scalar grep { /key is more than \d+ bytes/ } @lines[ $from .. $#lines ] ];
    }
    $keys++;
    is_deeply($asked{sync}, $asked{plain}, "$target: keys are asked for as nginx does it") or diag(explain(\%asked));
}

# Within nginx.
same('a subrequest with a limit', ('/submain?key=KEY') x 4);
same('a request and its subrequest', ('/main?key=KEY') x 4);
same('a refusal that is answered elsewhere', ('/moved?key=KEY') x 3);
same('a named location', ('/tried?key=KEY') x 3);

# Levels.
same('inherited from the server', ([ '/inherits?key=KEY', 'inherits' ]) x 3, [ '/inherits/deep?key=KEY', 'inherits' ]);
same('a level of its own', ([ '/own?key=KEY', 'inherits' ]) x 4);

# Delays: asked at once, the answers come one after the other.
sub at_once {
    my ($port, $target, $count) = @_;
    my $began = time;
    my @open = map { my $socket = tcp($port); print {$socket} "GET $target HTTP/1.0\r\n\r\n"; $socket } 1 .. $count;
    my @got;
    for my $socket (@open) {
        my ($bytes) = read_all($socket, 10);
        push @got, [ ($bytes =~ m{^HTTP/1\.\d (\d+)})[0], ($bytes =~ /^X-Status: (\S+)/mi)[0], time - $began ];
    }
    return @got;
}
sub delayed_same {
    my ($name, $target, $count, @expected) = @_;
    my %said;
    for my $kind (qw(plain sync)) {
        my $from = () = $node->log_lines;
        my @got = at_once($port{$kind}, $target =~ s/KEY/k$keys/gr, $count);
        $said{$kind} = [ [ sort map { "$_->[0] $_->[1]" } @got ], [ sort(lines($from)) ] ];
        my @late = sort { $a <=> $b } map { $_->[2] } @got;
        cmp_ok($late[$_], '>', $expected[$_] - 0.02, "$name, $kind: answer $_ is not too early") for grep { $expected[$_] } 0 .. $#expected;
    }
    $keys++;
    is_deeply($said{sync}, $said{plain}, "$name: as nginx does it") or diag(explain(\%said));
    return $said{sync};
}
$said = delayed_same('delays', '/wait?key=KEY', 4, 0, 0, 0.2, 0.4);
is_deeply($said->[0], [ '200 DELAYED', '200 DELAYED', '200 PASSED', '503 REJECTED' ], '... what is within the burst waits');
$said = delayed_same('delays from the third on', '/partly?key=KEY', 5, 0, 0, 0, 0, 0.2);
is_deeply($said->[0], [ '200 DELAYED', ('200 PASSED') x 3, '503 REJECTED' ], '... waits');
is_deeply([ grep { !/^\[info\]/ } @{ $said->[1] } ], [], '... and level info has none below it');
delayed_same('the longest of several delays', '/longest?key=KEY', 4, 0, 0.2, 0.4, 0.6);

# Clients that go away while they wait.
{
    my %said;
    for my $kind (qw(plain sync)) {
        ask($port{$kind}, "/wait?key=gone");
        my $from   = () = $node->log_lines;
        my $socket = tcp($port{$kind});
        print {$socket} "GET /wait?key=gone HTTP/1.1\r\nHost: a\r\n\r\n";
        wait_for(sub { lines($from) });
        close $socket;
        my $gone = qr/client prematurely closed connection/;
        my $told = sub { my @lines = $node->log_lines; return grep { /$gone/ } @lines[ $from .. $#lines ] };
        $said{$kind} = [ lines($from), wait_for($told) ? 'told' : 'not told' ];
        is(ask($port{$kind}, '/none')->status, 200, "$kind: and nginx goes on");
    }
    is_deeply($said{sync}, $said{plain}, 'a client that goes away while it waits') or diag(explain(\%said));
    is($said{sync}[-1], 'told', '... is noticed');
}

# Requests that follow each other on one connection, each of which waits.
for my $kind (qw(plain sync)) {
    my $socket = tcp($port{$kind});
    print {$socket} "GET /wait?key=pipe HTTP/1.1\r\nHost: a\r\n\r\n" x 2 . "GET /wait?key=pipe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    my ($bytes, $closed) = read_all($socket, 10);
    is_deeply([ $bytes =~ /^X-Status: (\S+)/mg ], [qw(PASSED DELAYED DELAYED)], "$kind: three on one connection");
    ok($closed, '... to the end');
}

# Long keys.
for my $kind (qw(plain sync)) {
    my $key = 'x' x 3000;
    is(outcome($port{$kind}, "/alone?key=$key"),  '200 PASSED',   "$kind: a long key");
    is(outcome($port{$kind}, "/alone?key=$key"),  '503 REJECTED', '... counts');
    is(outcome($port{$kind}, "/alone?key=${key}y"), '200 PASSED', '... and no other that begins so');
}

# Keys that there is no room for.
allow_log(qr/could not allocate node in limit_req zone/);
for my $path (qw(/huge /huge2)) {
    my $said = same("$path: a limit that can't count", ("$path?key=KEY&huge=1") x 2, ("$path?key=KEY") x 2);
    is_deeply($said->[0], [ ('503 REJECTED') x 2, ('200 PASSED') x 2 ], '... is no way past it');
}
same('... nor in a dry run, which refuses nothing', ('/hugedry?key=KEY&huge=1') x 2);
for my $kind (qw(plain sync)) {
    my @lines = grep { m{\[alert\].*could not allocate node in limit_req zone "$kind/huge"} } $node->log_lines;
    is(scalar @lines, 6, "$kind: each time the log names the zone");
}

# Both kinds together.
my @keys = map { "m$_" } 1 .. 30;
sub mixed { my ($target, $count, $host) = @_; my $key = shift @keys; return [ map { outcome($node->port, $target =~ s/KEY/$key/gr, $host) } 1 .. $count ] }
is_deeply(mixed('/sync?key=KEY', 4), [ ('200 PASSED') x 3, '503 REJECTED' ], 'a level with shared limits inherits none of nginx\'s');
is_deeply(mixed('/plain?key=KEY', 4, 'other'), [ ('200 -') x 3, '503 -' ], 'a level with limits of nginx\'s inherits no shared ones');
is_deeply(mixed('/off', 2, 'other'), [ '200 -', '503 -' ], '... but one without has them');
is_deeply(mixed('/strict?key=KEY&other=KEY', 4), [ ('200 PASSED') x 2, ('503 REJECTED') x 2 ], 'nginx\'s and shared ones: the stricter refuses');
is_deeply(mixed('/stricter?key=KEY&other=KEY', 4), [ ('200 PASSED') x 2, ('503 REJECTED') x 2 ], '... whichever it is');
{
    my $key = shift @keys;
    ask($node->port, "/strict?key=$key&other=$key") for 1 .. 5;
    is_deeply([ map { outcome($node->port, "/strict?key=$key") } 1 .. 3 ], [ ('200 PASSED') x 2, '503 REJECTED' ], '... and what it refuses does not count with nginx');
    $key = shift @keys;
    ask($node->port, "/stricter?key=$key&other=$key") for 1 .. 5;
    is_deeply([ map { outcome($node->port, "/stricter?key=$key") } 1 .. 3 ], [ ('200 PASSED') x 2, '503 REJECTED' ], '... nor with ours');
}
is_deeply(mixed('/stricter?other=KEY', 3), [ ('200 PASSED') x 2, '503 REJECTED' ], '... without a key for ours');
is_deeply(mixed('/stricter?key=KEY', 5), [ ('200 PASSED') x 4, '503 REJECTED' ], '... without one for nginx\'s');
is_deeply(mixed('/strict', 2), [ ('200 -') x 2 ], '... without any');
is_deeply(mixed('/dry?key=KEY&other=KEY', 2), [ '200 PASSED', '200 REJECTED_DRY_RUN' ], 'a dry run in which nginx\'s would refuse');
is_deeply(mixed('/drier?key=KEY&other=KEY', 2), [ '200 PASSED', '200 REJECTED_DRY_RUN' ], '... and one in which a shared one would');
{
    # nginx's own lets the second one wait, and the shared one can't count it.
    my ($key, $socket, $began) = (shift @keys, tcp($node->port), time);
    print {$socket} "GET /huge?key=$key&huge=1 HTTP/1.1\r\nHost: a\r\n\r\n" x 3
        . "GET /huge?key=other$key HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    my ($bytes, $closed) = read_all($socket, 10);
    is_deeply([ $bytes =~ m{^HTTP/1\.1 (\d+)}mg ], [ ('503') x 3, '200' ], 'a shared limit that can not count, where nginx\'s own would wait');
    is_deeply([ $bytes =~ /^X-Status: (\S+)/mg ], [ ('REJECTED') x 3, 'PASSED' ], '... and what it says');
    ok($closed, '... and the connection goes on to its end');
}
for (['/long', 'a shared limit'], ['/longer', 'one of nginx\'s']) {
    my ($target, $what) = @$_;
    my $key = shift @keys;
    my @got = at_once($node->port, "$target?key=$key", 3);
    is_deeply([ sort map { "$_->[0] $_->[1]" } @got ], [ '200 DELAYED', '200 DELAYED', '200 PASSED' ], "$what has the longest delay");
    my @late = sort { $a <=> $b } map { $_->[2] } @got;
    cmp_ok($late[1], '>', 0.18, '... the second waits for it');
    cmp_ok($late[2], '>', 0.38, '... and the third');
    cmp_ok($late[2], '<', 2, '... but not for both');
}

# Reloads and workers.
is(outcome($port{sync}, '/alone?key=kept'), '200 PASSED', 'a key');
$node->reload;
is(outcome($port{sync}, '/alone?key=kept'), '503 REJECTED', '... is known after a reload');
$node->kill_worker($node->workers);
allow_log(qr/exited on signal 9/);
is(outcome($port{sync}, '/alone?key=kept'), '503 REJECTED', '... and after a kill -9 of the worker');
my $http = $node->{http};
$node->reload(http => $http =~ s{zone=sync/slow:\K1m}{2m}r);
is(outcome($port{sync}, '/alone?key=kept'), '503 REJECTED', '... and in a zone of another size');
$node->reload(http => $http =~ s{zone=sync/slow:1m\s+rate=\K1r/m}{100r/s}r);
is(outcome($port{sync}, '/alone?key=kept'), '200 PASSED', 'another rate holds at once');

done_testing;
