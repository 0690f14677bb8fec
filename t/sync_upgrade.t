# A new binary takes over (USR2): for a while two nginx listen on the same addresses, each a node with memory of its own. What
# the old one has reaches the new one, whoever it was that clients spoke to.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;

# The master of the worker that gave an answer: two requests may meet two.
sub master_of {
    my ($answer) = @_;
    my $pid = $answer->header('x-pid') // '';
    return ZoneMesh::Node::slurp("/proc/$pid/stat") =~ /^\d+ \(.*\) \S (\d+)/s ? $1 : 0;
}

# Asks until this master answers, and gives what it says of the zone.
sub zone_of {
    my ($node, $master) = @_;
    return wait_for(sub { my $answer = $node->get('/api/9/http/keyvals/one'); master_of($answer) == $master && $answer->json }, 5);
}

sub write_to {
    my ($node, $key, $value) = @_;
    my $answer = $node->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode({ $key => $value }));
    return $answer->status == 201 ? master_of($answer) : 0;
}

sub pid_file { my ($node, $name) = @_; return ZoneMesh::Node::slurp($node->prefix . "/logs/$name") =~ /^(\d+)$/ ? $1 : 0 }

# Starts the new binary; gives the old and the new master.
sub upgrade {
    my ($node) = @_;
    my $old = $node->pid;
    $node->signal('USR2') or die $node->name . ' does not run';
    my $new = wait_for(sub { my $pid = pid_file($node, 'nginx.pid'); $pid && $pid != $old && pid_file($node, 'nginx.pid.oldbin') == $old ? $pid : 0 }, 10)
        or die $node->name . ": no new binary after 10 s:\n" . $node->tail(20);
    return ($old, $new);
}

# A node alone: nobody else could tell the new binary anything. And one of three.
for my $nodes (1, 3) {
    my $what = $nodes == 1 ? 'a node alone' : 'a node of three';
    my @nodes = cluster($nodes, not_started => 1, tls => authority('the CA'));
    my $node = $nodes[0];
    (my $http = $node->{http}) =~ s{api write=on;}{api write=on; add_header X-Pid \$pid always;} or die 'no location with api';
    $node->configure(daemon => 1, http => $http);
    $_->start for @nodes;
    connected($nodes - 1, @nodes);
    $node->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode({ map { ("key $_" => "value $_") } 1 .. 3_000 }));
    $node->drop('one', 'key 1');

    my ($old, $new) = upgrade($node);
    isnt($new, $old, "$what: a new binary runs beside the old one");
    eventually_is { scalar keys %{ zone_of($node, $new) } } 2_999, "$what: ... and gets all that the old one has", 15;
    eventually_is { scalar keys %{ zone_of($node, $old) } } 2_999, "$what: ... which keeps it";

    # Clients reach either, and what one of them takes reaches the other.
    my %by;
    $by{ write_to($node, "during $_", $_) }++ for 1 .. 200;
    is_deeply([ sort keys %by ], [ sort $old, $new ], "$what: writes are taken by the old and the new one");
    $node->drop('one', 'key 2');
    # Others keep a session to each of the two.
    for my $other (@nodes[ 1 .. $#nodes ]) {
        my $key = 'during, by ' . $other->name;
        is($other->add('one', $key, 'v'), 201, "$what: what another node takes meanwhile");
        eventually_is { zone_of($node, $_)->{$key} } 'v', "$what: ... reaches both" for $old, $new;
        my $address = '127.0.0.1:' . $node->sync;
        eventually_is {
            my @peers = grep { $_->{server} =~ /^\Q$address\E/ } @{ $other->get('/api/9/zonemesh/peers')->json };
            [ map { "$_->{server} $_->{state}" } @peers ]
        } [ "$address connected", "$address (second node) connected" ], "$what: ... in two sessions";
    }
    kill 'QUIT', $old or die "QUIT: $!";
    ok(wait_for(sub { !-e "/proc/$old" || ZoneMesh::Node::slurp("/proc/$old/stat") =~ /^\d+ \(.*\) Z/s }, 10), "$what: the old one ends");
    waitpid $old, 0;
    $node->{pid} = $new;
    eventually_is { scalar keys %{ $node->keyvals('one') } } 3_197 + $nodes, "$what: the new one has everything, deletes as well", 10;
    everywhere(\@nodes, 'during 200', '200', "$what: ... and so has everybody else", 10);
    connected($nodes - 1, @nodes);
    for my $other (@nodes[ 1 .. $#nodes ]) {
        eventually { !grep { $_->{server} =~ /second/ } @{ $other->get('/api/9/zonemesh/peers')->json } } "$what: one session each is left";
    }
    $_->add('one', 'after, by ' . $_->name, 'v') for @nodes;
    everywhere(\@nodes, 'after, by ' . $_->name, 'v', "$what: the cluster goes on (" . $_->name . ')', 10) for @nodes;
    same_everywhere(\@nodes, 'one', "$what: all are the same", 10);

    # A binary that turns out bad: the new one is told to go, and what it took is with the old one.
    ($old, $new) = upgrade($node);
    eventually { zone_of($node, $new)->{'during 200'} } "$what: once more", 15;
    my $last;
    ok(wait_for(sub { $last = 'taken at ' . time; write_to($node, $last, 'v') == $new }, 10), "$what: the new one takes a write");
    kill 'QUIT', $new or die "QUIT: $!";
    ok(wait_for(sub { pid_file($node, 'nginx.pid') == $old }, 10), "$what: the new one is sent away again");
    waitpid $new, 0;
    eventually_is { $node->keyvals('one')->{$last} } 'v', "$what: ... and what it took is there", 10;
    $_->stop for @nodes;
}

# As Debian's init script has it: the old one is told to go as soon as both pid files are there, before the two have met. Twice,
# as the second hands on what it has from the first.
{
    my $what = 'told to go at once';
    my ($node) = cluster(1, not_started => 1, tls => authority('the CA'));
    $node->configure(daemon => 1)->start;
    ok($node->wait_log(qr/is this node itself/), "$what: the node has found itself");
    $node->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode({ map { ("key $_" => "value $_") } 1 .. 3_000 }));
    for my $round (1, 2) {
        $node->add('one', "before $round", 'v');
        my ($old, $new) = upgrade($node);
        kill 'QUIT', $old or die "QUIT: $!";
        ok(wait_for(sub { !-e "/proc/$old" || ZoneMesh::Node::slurp("/proc/$old/stat") =~ /^\d+ \(.*\) Z/s }, 10),
            "$what: the old one ends (upgrade $round)");
        waitpid $old, 0;
        $node->{pid} = $new;
        is(wait_for(sub { scalar keys %{ $node->keyvals('one') } }), 3_000 + $round, "$what: the new one has all keys (upgrade $round)");
    }
    # It dials again and again meanwhile, and may meet the new one before that takes sessions: which isn't a loss.
    is_deeply([ $node->grep_log(qr/\[warn\].*zone_sync peer.* when this node ended/) ], [], "$what: nothing is said to be lost");
}

done_testing;
