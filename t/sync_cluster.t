# Three nodes: whatever is written anywhere is everywhere, whoever joins, is cut off or disagrees.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;

# Write, change, delete and expire on any of them. Every node lists itself among the peers.
{
    my @nodes = cluster(3, tls => authority('the CA'));
    for my $n (0 .. 2) {
        my ($first, $second, $third) = map { $nodes[ ($n + $_) % 3 ] } 0 .. 2;
        my $at = $first->name;
        is($first->add('one', 'k', "by $at"), 201, "$at: written");
        everywhere(\@nodes, 'k', "by $at", "$at: ... on all three");
        is($_->get('/read?key=k')->body, "by $at", "$at: ... as a variable on " . $_->name) for @nodes;
        is($second->change('one', 'k', 'changed'), 204, "$at: changed on the next node");
        everywhere(\@nodes, 'k', 'changed', "$at: ... on all three");
        is($third->drop('one', 'k'), 204, "$at: deleted on the one after it");
        everywhere(\@nodes, 'k', undef, "$at: ... gone from all three");

        my $began = time;
        is($first->post('/api/9/http/keyvals/one', '{"brief":{"value":"v","expire":1200}}')->status, 201, "$at: a pair that lives 1.2 s");
        everywhere(\@nodes, 'brief', 'v', "$at: ... on all three") if time - $began < 0.5;
        everywhere(\@nodes, 'brief', undef, "$at: ... has ended on all three", 4);
        cmp_ok(time - $began, '>=', 1.2, "$at: ... and not before its time");

        # An expire alone, a value alone: both are changes.
        is($first->post('/api/9/http/keyvals/one', '{"e":"v"}')->status, 201, "$at: a pair that lives an hour");
        everywhere(\@nodes, 'e', 'v', "$at: ... on all three");
        is($second->patch('/api/9/http/keyvals/one', '{"e":{"expire":300}}')->status, 204, "$at: its life is shortened elsewhere");
        everywhere(\@nodes, 'e', undef, "$at: ... it has ended on all three", 4);

        is($first->add('one', "left by $at", 'v'), 201, "$at: something to empty");
        everywhere(\@nodes, "left by $at", 'v', "$at: ... on all three");
        is($third->clear('one'), 204, "$at: the zone is emptied on another node");
        everywhere_is(\@nodes, sub { $_[0]->keyvals('one') }, {}, "$at: ... on all three");
    }

    # Two writers of one key.
    for my $round (1 .. 20) {
        my @writers = map {
            my $node = $_;
            my $pid = fork // die "fork: $!";
            if (!$pid) {
                for (1 .. 5) { eval { $node->get("/set?key=contended&v=" . $node->name . "-$_") } }
                POSIX::_exit(0);
            }
            $pid;
        } @nodes;
        waitpid $_, 0 for @writers;
    }
    my $end = same_everywhere(\@nodes, 'one', 'writers of one key on three nodes: all end with the same value');
    like($end->{contended}, qr/^node[123]-5$/, '... which is the last of one of them');

    # Random traffic of all kinds, everywhere at once.
    my @traffic = map {
        my $node = $_;
        my $pid = fork // die "fork: $!";
        if (!$pid) {
            srand $$;
            for (1 .. 150) {
                my $key = 'k' . int rand 12;
                my $how = rand;
                eval {
                    if    ($how < 0.5)  { $node->get("/set?key=$key&v=$$.$_") }
                    elsif ($how < 0.7)  { $node->drop('one', $key) }
                    elsif ($how < 0.8)  { $node->change('one', $key, "$$.$_") }
                    elsif ($how < 0.99) { $node->patch('/api/9/http/keyvals/one', "{\"$key\":{\"value\":\"$$\",\"expire\":@{[ 1 + int rand 400 ]}}}") }
                    else                { $node->clear('one') }
                };
            }
            POSIX::_exit(0);
        }
        $pid;
    } @nodes;
    waitpid $_, 0 for @traffic;
    $nodes[0]->add('one', 'at last', 1);
    everywhere(\@nodes, 'at last', 1, 'after random traffic a last write arrives');
    # Short-lived pairs end meanwhile: wait until none is left that could end between two looks.
    sleep 0.5;
    same_everywhere(\@nodes, 'one', '... and all are the same');

    # A node that starts empty.
    my %many = map { ("key $_" => "value $_") } 1 .. 3_000;
    $nodes[0]->clear('one');
    everywhere_is(\@nodes, sub { $_[0]->keyvals('one') }, {}, 'emptied');
    is($nodes[0]->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode(\%many))->status, 201, 'three thousand pairs');
    everywhere_is(\@nodes, sub { $_[0]->keyvals('one') }, \%many, '... everywhere', 10);
    $nodes[1]->drop('one', "key $_") for 1 .. 50;
    delete $many{"key $_"} for 1 .. 50;
    everywhere_is(\@nodes, sub { $_[0]->keyvals('one') }, \%many, 'some are deleted', 10);
    $nodes[2]->crash;
    $nodes[1]->drop('one', "key $_") for 51 .. 60;
    delete $many{"key $_"} for 51 .. 60;
    $nodes[2]->start;
    everywhere_is([ $nodes[2] ], sub { $_[0]->keyvals('one') }, \%many, 'a node that starts empty gets everything, and nothing deleted', 10);
    $nodes[2]->change('one', 'key 100', 'by the newcomer');
    $many{'key 100'} = 'by the newcomer';
    everywhere_is(\@nodes, sub { $_[0]->keyvals('one') }, \%many, '... and is heard', 10);

    # Everybody restarted, one after the other: the zone outlives each of them.
    for my $node (@nodes) {
        ok(defined $node->quit, $node->name . ': ended');
        $node->start;
        everywhere_is([$node], sub { $_[0]->keyvals('one') }, \%many, '... and started anew, it has everything', 10);
        connected(2, @nodes);
    }
    $_->stop for @nodes;
}

# A node that was cut off catches up both ways: by a connection that broke, and by a network that swallows everything.
for my $how (qw(broken silent)) {
    my @nodes = cluster(3, cut_off => 3);
    my $relay = $nodes[2]{relay};
    my @rest  = @nodes[0, 1];
    is($nodes[0]->add('one', $_, 'before'), 201, "$how: a key from before") for qw(before changed deleted contended);
    everywhere(\@nodes, 'contended', 'before', "$how: ... everywhere");
    $how eq 'broken' ? $relay->stop : $relay->freeze;
    eventually_is { $nodes[2]->zone_sync->{status}{nodes_online} } 0, "$how: the third node sees no other", 10;
    eventually_is { $nodes[0]->zone_sync->{status}{nodes_online} } 1, "$how: the first sees one", 10;

    is($nodes[0]->add('one', 'there', 'v'), 201, "$how: written on the majority's side");
    everywhere(\@rest, 'there', 'v', "$how: ... seen there");
    is($nodes[2]->add('one', 'here', 'v'), 201, "$how: written on the other side");
    is($nodes[1]->change('one', 'changed', 'after'), 204, "$how: changed there");
    is($nodes[2]->drop('one', 'deleted'), 204, "$how: deleted on the other side");
    is($nodes[0]->change('one', 'contended', 'first'), 204, "$how: changed there");
    sleep 0.02;    # stamps are times: the later write wins
    is($nodes[2]->change('one', 'contended', 'last'), 204, "$how: and later on the other side");
    is($nodes[2]->keyvals('one')->{there}, undef, "$how: the cut is one");
    is($nodes[0]->keyvals('one')->{here},  undef, "$how: both ways");

    $how eq 'broken' ? $relay->start : $relay->thaw;
    everywhere_is(
        \@nodes, sub { $_[0]->keyvals('one') },
        { before => 'before', there => 'v', here => 'v', changed => 'after', contended => 'last' },
        "$how: the node catches up both ways, the later write wins, the deleted key stays deleted", 15
    );
    $_->stop for @nodes;
    $relay->stop;
}

# A network with delay and reorderings between connections: connections break again and again under traffic.
{
    my @nodes = cluster(3, cut_off => 3);
    my $relay = $nodes[2]{relay};
    my $pid   = fork // die "fork: $!";
    if (!$pid) {
        for my $i (1 .. 300) { eval { $nodes[ $i % 3 ]->get("/set?key=k@{[ $i % 40 ]}&v=$i") } }
        POSIX::_exit(0);
    }
    until (waitpid $pid, POSIX::WNOHANG()) { $relay->stop; sleep 0.05; $relay->start; sleep 0.25 }
    my $end = same_everywhere(\@nodes, 'one', 'connections that break under traffic: all are the same in the end', 15);
    is(scalar keys %$end, 40, '... and nothing is missing');
    is($end->{k20}, 300, '... or old');
    $_->stop for @nodes;
    $relay->stop;
}

# Zones that a peer lacks or declares differently: one log line, and the others go on.
{
    my ($first, $second) = my @nodes = cluster(2, not_started => 1);
    my ($one, $more) = ('keyval_zone zone=one:1m timeout=1h sync;', 'keyval_zone zone=more:64k sync;');
    $first->configure(http => $first->{http} . "\n$more")->start;
    $second->start;
    connected(1, @nodes);
    $first->add('more', 'k', 'v');
    $first->add('one', 'k', 'v');
    everywhere(\@nodes, 'k', 'v', 'a zone that one node lacks: the other zones go on');
    for my $node (@nodes) {
        ok(scalar $node->wait_log(qr/\[(?:warn|error|notice)\].*"?more"?/), '... and a log line on ' . $node->name . ' names it')
            or diag($node->tail(20));
    }
    sleep 1;
    cmp_ok(scalar($second->grep_log(qr/\[(?:warn|error|notice)\].*\bmore\b/)), '<=', 2, '... not again and again');
    my $online = $first->zone_sync->{status};
    is($online->{nodes_online}, 1, '... and no disconnect');

    $second->reload(http => $second->{http} . "\n$more");
    eventually_is { $second->keyvals('more') } { k => 'v' }, 'declared by a reload, the zone is filled', 10;
    is($second->keyvals('one')->{k}, 'v', '... and the others are as they were');

    # `sync` on one side only.
    (my $apart = $second->{http}) =~ s/\Q$more\E/keyval_zone zone=more:64k;/;
    $second->reload(http => $apart);
    $first->change('more', 'k', 'changed');
    $first->add('one', 'mark', 1);
    everywhere(\@nodes, 'mark', 1, 'a zone without sync on one node: the other zones go on', 10);
    isnt($second->keyvals('more')->{k}, 'changed', '... and it stays apart');
    $_->stop for @nodes;
}

# Over unix: sockets.
{
    my @nodes = cluster(3, unix => 1);
    is($nodes[0]->add('one', 'k', 'v'), 201, 'unix: written');
    everywhere(\@nodes, 'k', 'v', 'unix: ... on all three');
    is($nodes[2]->drop('one', 'k'), 204, 'unix: deleted');
    everywhere(\@nodes, 'k', undef, 'unix: ... on all three');
    $_->stop for @nodes;
}

# A peer that isn't there yet.
{
    my ($first, $second) = my @nodes = cluster(2, not_started => 1);
    $first->start;
    is($first->add('one', 'k', 'written alone'), 201, 'a node alone takes writes');
    sleep 1.5;
    is($first->zone_sync->{status}{nodes_online}, 0, '... and sees nobody, itself least of all');
    cmp_ok(scalar($first->grep_log(qr/\[(?:error|warn)\]/)), '<', 8, '... without filling the log');
    $second->start;
    everywhere(\@nodes, 'k', 'written alone', 'a peer that comes later gets it');
    everywhere_is(\@nodes, sub { $_[0]->zone_sync->{status}{nodes_online} }, 1, 'each sees the other');
    sleep 0.5;
    is($_->zone_sync->{status}{nodes_online}, 1, $_->name . ' does not count itself after a while, either') for @nodes;
    is(scalar($_->grep_log(qr/\[error\].*itself/)), 0, $_->name . ': to find oneself in the list is no error') for @nodes;
    $_->stop for @nodes;
}

done_testing;
