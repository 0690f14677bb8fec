# What much writing costs: a key that is written all the time is sent as often as the connection allows, with an interval as
# often as that says; what finds no room is shown until there is room.

use FindBin;
use lib "$FindBin::Bin/lib";
use Time::HiRes qw(sleep time);
use ZoneMesh;
use ZoneMesh::Cluster;

# A hot key and a peer that doesn't read for a while.
{
    my ($first, $second) = my @nodes = cluster(2, cut_off => 2, zones => 'keyval_zone zone=one:8m sync;',
        sync => 'zone_sync_timeout 30s; zone_sync_connect_retry_interval 100ms;');
    my $sent = sub { $first->zone_sync->{status}{bytes_out} };
    is($first->add('one', 'hot', 'x'), 201, 'a key');
    everywhere(\@nodes, 'hot', 'x', '... on both nodes');
    my $before = $sent->();
    $second->{relay}->freeze;
    my ($writes, $size) = (400, 64_000);
    my $last = '';
    for my $n (1 .. $writes) {
        $last = sprintf '%0*d', $size, $n;
        $first->change('one', 'hot', $last) == 204 or die 'a write was refused';
    }
    $second->{relay}->thaw;
    eventually { $second->keyvals('one')->{hot} eq $last } 'a hot key: the last value arrives', 10;
    cmp_ok($sent->() - $before, '<', $writes * $size / 2, '... and not every one before it was sent');
    $_->stop for @nodes;
    $second->{relay}->stop;
}

# A hot key and a slow connection.
{
    my ($first, $second) = my @nodes = cluster(2, cut_off => 2, sync => 'zone_sync_timeout 30s; zone_sync_connect_retry_interval 100ms;');
    my $rate = 400_000;
    $second->{relay}->stop;
    $second->{relay}{rate} = $rate;
    $second->{relay}->start;
    connected(1, @nodes);
    is($first->add('one', 'hot', 'x'), 201, 'a key, and a slow connection');
    everywhere(\@nodes, 'hot', 'x', '... it is on both nodes', 10);
    my $sent = sub { $first->zone_sync->{status}{bytes_out} };
    my ($before, $began) = ($sent->(), time);
    # A thousand a second, or as many as the machine can.
    my ($writes, $size, $last) = (3_000, 4_000, '');
    for my $n (1 .. $writes) {
        $last = sprintf '%0*d', $size, $n;
        $first->get("/set?key=hot&v=$last")->status == 204 or die 'a write was refused';
        my $ahead = $n / 1_000 - (time - $began);
        sleep $ahead if $ahead > 0;
    }
    # Beyond what has arrived, buffers of sockets hold some: those of the sender alone would take megabytes if they were let.
    my ($bytes, $carried) = ($sent->() - $before, $rate * (time - $began) + 1_000_000);
    cmp_ok($bytes, '<', $carried, "... what was sent is what the connection carries ($bytes bytes of @{[ $writes * $size ]} written)");
    my $pending = $first->zone_sync->{zones}{one}{records_pending};
    cmp_ok($pending, '<=', 1, '... written to all the while, it is one record to send');
    eventually { $second->keyvals('one')->{hot} eq $last } '... the last value arrives when what is in the buffers of sockets has', 60;
    $_->stop for @nodes;
    $second->{relay}->stop;
}

# zone_sync_interval gathers changes.
{
    my ($first, $second) = my @nodes = cluster(2, sync => "$ZoneMesh::Cluster::QUICK zone_sync_timeout 10s; zone_sync_interval 500ms;" =~ s/zone_sync_timeout 1s;//r);
    is($first->add('one', 'k', '0'), 201, 'a key');
    everywhere(\@nodes, 'k', '0', '... on both nodes');
    my $messages = sub { $first->zone_sync->{status}{msgs_out} };
    my $before = $messages->();
    my ($writes, $began) = (0, time);
    while (time < $began + 2) { $first->get('/set?key=k&v=' . ++$writes) }
    my $rounds = $messages->() - $before;
    cmp_ok($writes, '>', 100, 'many writes in two seconds');
    # Of each round a few: records, positions, and acknowledgements of what the other node says.
    cmp_ok($rounds, '<', 50, "... leave in few messages ($rounds for $writes)");
    everywhere(\@nodes, 'k', $writes, '... and the last one arrives');
    $_->stop for @nodes;
}

# A zone that is smaller than the others'.
{
    my ($first, $second) = my @nodes = cluster(2, not_started => 1, zones => 'keyval_zone zone=one:1m sync;');
    (my $small = $second->{http}) =~ s/zone=one:1m/zone=one:64k/ or die 'no zone';
    $second->configure(http => $small);
    $_->start for @nodes;
    connected(1, @nodes);
    my $zone = sub { $_[0]->get('/api/9/zonemesh/zones/one')->json };
    $first->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode({ map { (sprintf('key %04d', $_) => 'v' x 100) } 1 .. 1_000 }));
    eventually { $zone->($second)->{incomplete} > 0 } 'a zone without room for what comes is shown as incomplete', 10;
    ok(scalar $second->wait_log(qr/\[error\].*zone "one" is full: records of peers are left out .*; give it more memory/), '... and the log says so');
    like($second->get('/api/9/zonemesh/metrics')->body, qr/^zonemesh_zone_incomplete_total\{zone="one"\} [1-9]/m, '... and the metrics');
    is($zone->($first)->{incomplete}, 0, '... not on the other node');
    is($first->delete('/api/9/zonemesh/keyvals/one?glob=key%200*')->status, 200, 'room is made: most keys are deleted');
    is($first->add('one', 'last', 'v'), 201, '... and one is added');
    my $wanted = { %{ $first->keyvals('one') } };
    is(scalar keys %$wanted, 2, '... two are left');
    everywhere_is(\@nodes, sub { $_[0]->keyvals('one') }, $wanted, 'repair brings what was left out', 120);
    eventually { $zone->($second)->{incomplete} == 0 } '... and then nothing is shown as missing', 120;
    ok(scalar $second->wait_log(qr/\[notice\].*zone "one" is complete: what had found no room is here, or over/), '... and the log says so');
    $_->stop for @nodes;
}

done_testing;
