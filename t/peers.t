# /zonemesh/peers: what a node knows of the others, also when they are gone, slow or of another configuration.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;

sub peers { return $_[0]->get('/api/9/zonemesh/peers')->json }

# What a node shows of another.
sub peer { my ($node, $other) = @_; return (grep { $_->{address} eq '127.0.0.1:' . $other->sync } @{ peers($node) })[0] }

sub metric { my ($node, $name) = @_; return $node->get('/api/9/zonemesh/metrics')->body =~ /^\Q$name\E (\S+)$/m ? $1 : undef }

my $time = qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

# Over TLS, in good health.
{
    my @nodes = my ($first, $second) = cluster(2, tls => authority('the CA'));
    $first->add('one', "key $_", 'v' x 100) for 1 .. 50;
    everywhere(\@nodes, 'key 50', 'v' x 100, 'two nodes');
    eventually { my $it = peer($first, $second); defined $it->{round_trip} && $it->{lag} == 0 && $it->{msgs_out} } 'a ping was answered, all was confirmed';
    my $it = peer($first, $second);
    my $address = '127.0.0.1:' . $second->sync;
    is($it->{server}, $address, 'the server, as the configuration has it');
    is($it->{state}, 'connected', 'its state');
    like($it->{$_}, $time, "$_ is a time") for qw(since);
    like($it->{node}, qr/^[0-9a-f]{16}$/, 'the node');
    ok(scalar $first->grep_log(qr/connected to node $it->{node}/), '... by the name that the log has');
    is($it->{certificate}{name}, 'node2', 'the name in its certificate');
    like($it->{certificate}{expires}, $time, '... and its end');
    cmp_ok($it->{bytes_out}, '>', 5_000, 'bytes that were sent');
    cmp_ok($it->{$_}, '>', 0, $_) for qw(bytes_in msgs_in msgs_out round_trip);
    like($it->{clock_offset}, qr/^-?\d{1,3}$/, 'one clock: no offset to speak of');
    is($it->{records_pending}, 0, 'nothing waits');
    is_deeply($it->{refused}, [], 'the zones are the same');
    eventually { peer($second, $first)->{inbound}{bytes_in} > 5_000 } 'the other node shows what came';
    like(peer($second, $first)->{inbound}{heard}, $time, '... and when');
    my $itself = peer($first, $first);
    is_deeply([ @$itself{qw(state node lag)} ], [ 'itself', undef, 0 ], 'a node shows its own address as such');
    is(scalar @{ peers($first) }, 2, 'there are no others');
    is(metric($first, "zonemesh_sync_peer_state{peer=\"$address\",state=\"connected\"}"), 1, 'the same as a metric');
    is(metric($first, "zonemesh_sync_peer_info{peer=\"$address\",node=\"$it->{node}\",certificate=\"node2\"}"), 1, '... with whom it is');
    cmp_ok(metric($first, "zonemesh_sync_peer_certificate_expiry_timestamp_seconds{peer=\"$address\"}"), '>', time + 86_400, '... until when');

    # Figures go on over a reload.
    my $sent = peer($first, $second)->{bytes_out};
    $first->reload;
    eventually { my $it = peer($first, $second); $it->{state} eq 'connected' && $it->{bytes_out} > $sent && $it->{lag} == 0 }
        'figures go on over a reload';

    # It goes.
    $second->stop;
    eventually { peer($first, $second)->{state} eq 'unreachable' } 'it is gone: the state';
    $it = peer($first, $second);
    is($it->{node}, undef, '... there is no node');
    like($it->{error}{text}, qr/^can't be reached: connect\(\) failed/, '... why');
    like($it->{error}{time}, $time, '... since when');
    is($it->{lag}, 0, '... it lacks nothing yet');
    $first->add('one', 'more', 'v');
    eventually { peer($first, $second)->{lag} > 300 } '... it lacks something for longer and longer';
    eventually { metric($first, "zonemesh_sync_peer_lag_seconds{peer=\"$address\"}") > 0.3 } '... also as a metric';
    $first->reload;
    cmp_ok(peer($first, $second)->{lag}, '>', 300, '... a reload forgets nothing of that');
    $second->start;
    everywhere(\@nodes, 'more', 'v', 'it is there again');
    eventually { my $it = peer($first, $second); $it->{state} eq 'connected' && $it->{lag} == 0 } '... and lacks nothing';
    like(peer($first, $second)->{error}{text}, qr/reached/, '... the last error stays to be seen');
    $_->stop for @nodes;
}

# A peer that doesn't read: its backlog and lag grow, and its own only.
{
    my @nodes = my ($first, $second, $third) = cluster(3, cut_off => 3, sync => 'zone_sync_timeout 30s; zone_sync_connect_retry_interval 100ms;',
        zones => 'keyval_zone zone=one:32m timeout=1h sync;');
    my $through = sub { (grep { $_->{address} !~ /:(?:@{[ join '|', map { $_->sync } @nodes[ 0, 1 ] ]})$/ } @{ peers($first) })[0] };
    eventually { $through->()->{lag} == 0 && peer($first, $second)->{lag} == 0 } 'three nodes, nothing is behind';
    # Its own, not the shared zones'.
    my $memory = sub { ZoneMesh::Node::slurp('/proc/' . $first->agent_worker . '/status') =~ /^RssAnon:\s+(\d+)/m ? $1 : 0 };
    my $before = $memory->();
    my $has = sub { my ($node, $key) = @_; $node->get("/api/9/http/keyvals/one?key=$key")->json->{$key} };
    $third->{relay}->freeze;
    # Mostly more than what sockets hold.
    my $value = 'x' x 40_000;
    my $fill = sub {
        my ($round) = @_;
        return $first->post('/api/9/zonemesh/keyvals/one', join '', map { ZoneMesh::Node::encode({ "r$round k$_" => $value }) . "\n" } 1 .. 15);
    };
    $fill->($_) for 1 .. 30;
    $first->add('one', 'last', 'v');
    eventually_is { $has->($second, 'last') } 'v', 'one does not read: the others have everything';
    eventually { $through->()->{lag} > 1_000 } '... it falls behind';
    eventually_is { peer($first, $second)->{lag} } 0, '... the other one does not';
    my ($more, $waits) = (0, sub { $through->()->{records_pending} > 0 && $first->zone_sync->{zones}{one}{records_pending} > 0 });
    # Where sockets took all of it, there is more.
    eventually { $waits->() || !$fill->(1 + $more++ % 30) } '... and records wait';
    eventually_is { peer($first, $second)->{records_pending} } 0, '... not for the other one';
    is($through->()->{state}, 'connected', '... it is a slow peer, not an absent one');
    cmp_ok($memory->() - $before, '<', 8_000, '... what waits costs no memory (KiB)');
    $third->{relay}->thaw;
    eventually_is { $has->($third, 'last') } 'v', '... once it reads it gets everything', 20;
    eventually { my $it = $through->(); $it->{lag} == 0 && $it->{records_pending} == 0 } '... and nothing waits any more', 10;
    is($_->zone_sync->{zones}{one}{records_total}, 451, '... ' . $_->name . ' has all') for @nodes;
    $_->stop for @nodes;
    $third->{relay}->stop;
}

done_testing;
