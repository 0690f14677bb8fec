# A reload that gives a zone another size keeps its records; one that can't is refused and changes nothing. Nothing that an
# old or new worker acknowledged while it happens is lost.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Writers;

my $frame = <<'CONF';
    client_body_buffer_size 64k;
    keyval $arg_key $value zone=one;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api   { api write=on; }
        location /read  { return 200 "$value"; }
        location /set   { set $value $arg_v; return 204; }
    }
CONF

sub conf { return (http => "keyval_zone zone=one:$_[0];\n$frame") }
my $node = node(workers => 2, conf('256k timeout=1h'))->start;
sub zone { return $node->get('/api/9/zonemesh/zones/one')->json }
sub size { my $zone = zone(); return $zone->{bytes}{used} + $zone->{bytes}{free} }

# A reload that must be refused, and what the log must say.
sub refused {
    my ($parameters, $pattern, $name) = @_;
    my %workers = map { $_ => 1 } $node->workers;
    my $before  = () = $node->grep_log(qr/\[emerg\]/);
    $node->configure(conf($parameters));
    $node->signal('HUP');
    my @said = $node->wait_log(qr/\[emerg\]/, 5, $before);
    like($said[-1], $pattern, $name);
    is(scalar(grep { !$workers{$_} } $node->workers), 0, '... and the workers are those of before');
    return;
}

my %all = map { ("key $_" => "value $_ " . 'v' x ($_ % 90)) } 1 .. 500;
$all{large} = 'x' x 30_000;
is($node->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode(\%all))->status, 201, 'a zone with 501 pairs');
is($node->patch('/api/9/http/keyvals/one', '{"key 1":{"expire":600000}}')->status, 204, '... of which one has a life of its own');
my $small = size();

# Larger, smaller.
$node->reload(conf('4m timeout=1h'));
cmp_ok(size(), '>', 10 * $small, 'a larger zone');
is_deeply($node->keyvals('one'), \%all, '... has all pairs');
ok(scalar $node->wait_log(qr/keyval_zone "one".*all 501 records were moved/), '... which the log says');
is($node->add('one', 'key 1', 'x'), 409, '... they are the same pairs');
is($node->change('one', 'key 2', 'changed'), 204, '... which can be changed');
$all{'key 2'} = 'changed';
is($node->drop('one', 'key 3'), 204, '... and deleted');
delete $all{'key 3'};
$node->reload(conf('512k timeout=1h'));
is_deeply($node->keyvals('one'), \%all, 'a smaller zone in which all fits has all');
eventually { !$node->old_workers } 'old workers go';

# Smaller, and it doesn't fit.
allow_log(qr/\[emerg\].*keyval_zone "one"/);
my $before = size();
refused('64k timeout=1h', qr/keyval_zone "one" in .*nginx\.conf:\d+: \d+ of its 500 records don't fit into 65536 bytes \(it has 524288\)/,
    'a zone too small for its records is refused with counts');
is(size(), $before, '... and is as large as before');
is_deeply($node->keyvals('one'), \%all, '... with all that it had');
is($node->add('one', 'after', 'v'), 201, '... and takes writes');
$all{after} = 'v';
is($node->drop('one', 'key 4'), 204, '... and deletes');
delete $all{'key 4'};

# A later error: the records were tried on the new memory, and nothing has happened.
my $taken = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 1) or die "socket: $!";
my $emergs = () = $node->grep_log(qr/still could not bind/);
$node->configure(http => "keyval_zone zone=one:8m timeout=1h;\n$frame server { listen 127.0.0.1:" . $taken->sockport . '; }');
$node->signal('HUP');
allow_log(qr/bind\(\) to|still could not bind/);
ok(scalar $node->wait_log(qr/still could not bind/, 10, $emergs), 'a reload that fails after the zones were made');
is(size(), $before, '... leaves the zone as large as it was');
is_deeply($node->keyvals('one'), \%all, '... and with what it had');
close $taken;

# Another type.
refused('512k timeout=1h type=ip', qr/keyval_zone "one" in .* has type=ip, but its records were written with type=string/,
    'another type is refused');
refused('1m timeout=1h type=prefix', qr/keyval_zone "one" in .* has type=prefix, but its records were written with type=string/,
    '... with another size as well');
is_deeply($node->keyvals('one'), \%all, '... and the pairs stay');

# With evict what doesn't fit is given up.
is($node->drop('one', 'large'), 204, 'the large one goes');
delete $all{large};
$node->reload(conf('64k timeout=1h evict'));
my $left = $node->keyvals('one');
cmp_ok(scalar keys %$left, '>', 50, 'with evict a zone that is too small keeps what fits: ' . keys %$left);
cmp_ok(scalar keys %$left, '<', 500, '... and no more');
is(scalar(grep { $left->{$_} ne $all{$_} } keys %$left), 0, '... and each pair is whole');
ok(scalar $node->wait_log(qr/keyval_zone "one".*of 499 records \d+ were given up/), '... which the log says');

# Under a storm of writes, through old and new workers. Connections that are kept alive end when their worker is asked to;
# one in the middle of a slow request stays with its old worker.
for my $shared (0, 1) {
    my $with = $shared ? 'shared' : 'not shared';
    my $storm = node(name => "storm$shared", workers => 2, conf('256k timeout=1h' . ($shared ? ' sync' : '')))->start;
    my @slow = map {
        my $slow = tcp($storm->port);
        print {$slow} "POST /api/9/http/keyvals/one HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: " . length("{\"slow $_\":\"v\"}") . "\r\n\r\n{";
        $slow;
    } 1 .. 4;
    $storm->add('one', "doomed $_", 'v') for 1 .. 4;
    my @doom = map {
        my $doom = tcp($storm->port);
        my $body = "{\"doomed $_\":null}";
        print {$doom} "PATCH /api/9/http/keyvals/one HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: " . length($body) . "\r\n\r\n{";
        [ $doom, substr $body, 1 ];
    } 1 .. 4;
    sleep 0.2;
    my $traffic = ZoneMesh::Writers->new([ 1 .. 3 ], sub {
        my ($writer, $i) = @_;
        # Every tenth key is written once: what comes later can't hide its loss.
        my $once = $i % 10 == 0 && $i < 1_500;
        my $key  = $once ? "once$writer-$i" : "w$writer-" . $i % 40;
        my $v    = $once || $i % 7 ? $i : undef;
        my $status = eval {
            # What a variable is set to is refused without a word: not for what is written once.
            $once ? $storm->add('one', $key, $v) - 201 + 204
                : defined $v ? $storm->get("/set?key=$key&v=$v")->status : $storm->drop('one', $key);
        } // 0;
        # a delete may come to a worker that doesn't know yet what the other wrote: then it isn't known what is
        return ($key, $status == 204 ? $v // '-' : undef);
    });
    for my $size ('2m', '256k', '1m', '128k', '512k') {
        sleep 0.3;
        $storm->reload(conf("$size timeout=1h" . ($shared ? ' sync' : '')));
    }
    for my $n (1 .. 4) {
        print { $slow[ $n - 1 ] } "\"slow $n\":\"v\"}";
        print { $doom[ $n - 1 ][0] } $doom[ $n - 1 ][1];
    }
    my @statuses = map { my ($bytes) = read_all($_, 5); $bytes =~ m{^HTTP/1.1 (\d+)} ? $1 : 'none' } @slow, map { $_->[0] } @doom;
    is("@statuses", '201 201 201 201 204 204 204 204', "$with: workers of the first configuration add and delete after five reloads");
    close $_ for @slow, map { $_->[0] } @doom;
    sleep 0.3;
    my %acknowledged = $traffic->stop;
    cmp_ok(scalar(keys %acknowledged), '>', 60, "$with: writes were acknowledged all the time");
    my $end;
    my $lost = sub {
        $end = $storm->keyvals('one');
        return grep { ($end->{$_} // '-') ne $acknowledged{$_} } sort keys %acknowledged;
    };
    wait_for(sub { !$lost->() }, 3);
    is_deeply([ $lost->() ], [], "$with: nothing that was acknowledged is lost, and nothing deleted is back")
        or diag(map { "$_ is '" . ($end->{$_} // '-') . "', not $acknowledged{$_}\n" } $lost->());
    eventually_is { my $now = $storm->keyvals('one'); join ' ', sort grep { /slow|doomed/ } keys %$now }
        'slow 1 slow 2 slow 3 slow 4', "$with: what the first workers did is here";
    eventually { !$storm->old_workers } "$with: no old worker stays", 5;
    is($storm->add('one', 'at last', 'v'), 201, "$with: the zone goes on");
    is($storm->drop('one', 'at last'), 204, '... with deletes');
    if (!$shared) {
        my $stones = sub { $storm->get('/api/9/zonemesh/zones/one')->json->{tombstones} };
        ok(wait_for(sub {
            my $now = $stones->();
            $storm->add('one', 'stone', 'v');
            $storm->drop('one', 'stone');
            return $stones->() <= $now && !exists $storm->keyvals('one')->{stone};
        }, 5, 0.2), '... that leave no tombstones once the old workers have gone');
    }
}

# In a cluster, peers lose nothing either.
my @nodes = my ($first, $second) = cluster(2);
$first->add('one', "before $_", 'v') for 1 .. 20;
everywhere(\@nodes, 'before 20', 'v', 'cluster: written before');
for my $size ('4m', '512k') {
    (my $http = $first->{http}) =~ s/zone=one:\w+/zone=one:$size/;
    $first->reload(http => $http);
    $first->add('one', "at $size", 'v');
    $second->add('one', "back at $size", 'v');
    $first->drop('one', "before " . ($size eq '4m' ? 1 : 2));
    everywhere(\@nodes, "at $size",      'v', "cluster: written after a reload with $size");
    everywhere(\@nodes, "back at $size", 'v', '... and on the other node');
}
same_everywhere(\@nodes, 'one', 'cluster: the same everywhere');
is($second->keyvals('one')->{'before 1'}, undef, '... also what was deleted');
is(scalar(keys %{ $second->keyvals('one') }), 22, '... and nothing is missing');

# ... also what is written all the while, through old and new workers.
{
    my $traffic = ZoneMesh::Writers->new([ 1 .. 3 ], sub {
        my ($writer, $i) = @_;
        # What is written once has nothing later that hides its loss.
        my $once = $i % 5 == 0 && $i < 1_500;
        my $key  = $once ? "once$writer-$i" : "w$writer-" . $i % 20;
        my $status = eval { $once ? $first->add('one', $key, $i) - 201 + 204 : $first->get("/set?key=$key&v=$i")->status } // 0;
        return ($key, $status == 204 ? $i : undef);
    });
    for my $size ('4m', '512k', '8m', '1m', '2m') {
        (my $http = $first->{http}) =~ s/zone=one:\w+/zone=one:$size/;
        sleep 0.3;
        $first->reload(http => $http);
    }
    sleep 0.3;
    my %acknowledged = $traffic->stop;
    cmp_ok(scalar(keys %acknowledged), '>', 100, 'cluster: writes were acknowledged during reloads');
    my $end  = same_everywhere(\@nodes, 'one', 'cluster: ... and are the same everywhere', 10);
    my @lost = grep { ($end->{$_} // '-') ne $acknowledged{$_} } sort keys %acknowledged;
    is(scalar(@lost), 0, 'cluster: ... with nothing lost') or diag(map { "$_ is '" . ($end->{$_} // '-') . "', not $acknowledged{$_}\n" } @lost);
}

# What old workers are told is kept fits into a smaller zone, also if new ones have filled it: else they are refused.
for my $held (0, 1) {
    my $tight = node(name => "tight$held", workers => 2, conf('256k timeout=1h'))->start;
    $tight->add('one', "first $_", 'v' x 400) for 1 .. 20;
    my @slow = map {
        my $slow = tcp($tight->port);
        my $body = "{\"slow $_\":\"" . 'v' x 800 . '"}';
        print {$slow} "POST /api/9/http/keyvals/one HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: " . length($body) . "\r\n\r\n{";
        [ $slow, substr $body, 1 ];
    } 1 .. 60;
    sleep 0.2;
    $tight->reload(conf('64k timeout=1h'));
    my ($filled, $name) = (0, $held ? 'a smaller zone that new workers fill' : 'a smaller zone');
    if ($held) { $filled++ while $tight->add('one', "fill $filled", 'v' x 100) == 201 }
    my (@kept, %count);
    for my $n (1 .. 60) {
        my ($socket, $body) = @{ $slow[ $n - 1 ] };
        print {$socket} $body;
        my ($bytes) = read_all($socket, 5);
        my $status = $bytes =~ m{^HTTP/1.1 (\d+)} ? $1 : 'none';
        $count{$status}++;
        push @kept, "slow $n" if $status == 201;
    }
    is(($count{201} // 0) + ($count{507} // 0), 60, "$name: old workers add or refuse: " . join ', ', map { "$count{$_} x $_" } sort keys %count);
    cmp_ok($count{201} // 0, '>', 0, '... they add what they have room for');
    cmp_ok($count{507} // 0, '>', 0, '... and refuse the rest');
    my %expected = map { $_ => 1 } @kept, map({ "first $_" } 1 .. 20), map { 'fill ' . ($_ - 1) } 1 .. $filled;
    eventually_is { [ sort keys %{ $tight->keyvals('one') } ] } [ sort keys %expected ], '... nothing that was acknowledged is lost';
    eventually { !$tight->old_workers } 'old workers go';
    is(scalar(my @lines = $tight->grep_log(qr/did not fit/)), 0, '... and the log has no loss');
    next if $held;
    ok(wait_for(sub { $tight->add('one', 'more' . rand, 'v' x 100) == 201 }, 5, 0.1), '... then the room that was kept for them is free');
}

# Without a master, one process is old and new worker. (nginx itself takes no more connections after a second reload then.)
my $single = node(name => 'single', main => 'master_process off;', workers => 0, conf('256k timeout=1h'))->start;
eventually { $single->get('/api/')->status == 200 } 'without a master: nginx answers';
$single->add('one', "key $_", 'v' x 100) for 1 .. 100;
$single->add('one', 'plain', 'v' x 100);
my $kept = tcp($single->port);
print {$kept} "GET /read?key=plain HTTP/1.1\r\nHost: h\r\nConnection: close\r\n";
sleep 0.2;
$single->configure(conf('1m timeout=1h'));
$single->signal('HUP');
ok(scalar $single->wait_log(qr/all 101 records were moved/), 'without a master: a reload moves the records');
print {$kept} "X-Header: y\r\n\r\n";
my ($bytes) = read_all($kept, 5);
like($bytes, qr/v{100}$/, '... a request that began before it ends after it');
is($single->add('one', 'after', 'v'), 201, '... the zone takes writes');
is(scalar(keys %{ $single->keyvals('one') }), 102, '... and has all');

done_testing;
