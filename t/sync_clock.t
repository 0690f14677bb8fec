# A node whose own stamps are ahead of its clock, and of those of the others: it goes on as another node, and what it had written
# reaches everybody. Nobody can set a clock for one nginx alone, so its stamps come from a state file that a clock an hour
# ahead has written.

use FindBin;
use lib "$FindBin::Bin/lib";
use Time::HiRes;
use ZoneMesh;
use ZoneMesh::Cluster;

my @nodes = my ($first, $second, $third) =
    cluster(3, zones => 'keyval_zone zone=one:1m timeout=1d state=state/one.json sync;', not_started => 1);
$_->worker_folder('state') for @nodes;
my $ahead = sprintf '%016x', int((Time::HiRes::time() + 3_600) * 1_000) << 16;
my $of    = 'a1' x 16;
$first->write_file('state/one.json', <<"STATE");
{
"ahead":{"value":"of the future","version":"$ahead.$of"},
"too":{"value":"as well","version":"$ahead.$of"}
}
STATE

# Alone it goes on from there: nobody refuses anything.
$first->start;
is_deeply($first->keyvals('one'), { ahead => 'of the future', too => 'as well' }, 'a node begins with stamps of the future');
$first->change('one', 'too', 'written on top of it');
$first->add('one', 'new', 'v');

$_->start for $second, $third;
ok(scalar $first->wait_log(qr/this node's clock is \d+ ms behind its own last stamp, and was mended, as its peers' clocks say/, 20),
    'with peers, which agree with its clock, it says that it goes on as another node') or diag($first->tail(20));
my ($identity) = $first->log_text =~ /it goes on as node ([0-9a-f]{16})/;
ok(scalar $first->wait_log(qr/zone "one": \d+ records from the future have new stamps/), '... and how many records have new stamps');
ok(scalar $first->wait_log(qr/this node is node $identity now/), '... and when that is done');
connected(2, @nodes);
everywhere(\@nodes, 'ahead', 'of the future',        'what was from the future is everywhere', 20);
everywhere(\@nodes, 'too',   'written on top of it', '... and what was written on top of it',  20);
everywhere(\@nodes, 'new',   'v',                    '... and what the node wrote then',       20);

# From now on, its writes are as good as others'.
$first->change('one', 'ahead', 'again');
everywhere(\@nodes, 'ahead', 'again', 'its changes arrive', 10);
$third->change('one', 'ahead', 'by another');
everywhere(\@nodes, 'ahead', 'by another', '... and so do those of others', 10);
$second->drop('one', 'too');
everywhere(\@nodes, 'too', undef, '... and deletes', 10);
same_everywhere(\@nodes, 'one', '... and all are the same');
ok(scalar(grep { ($_->{node} // '') eq $identity } @{ $second->get('/api/9/zonemesh/peers')->json }),
    'the others know it by its new identity') or diag($second->get('/api/9/zonemesh/peers')->body);

# A reload finds the node that it is now.
$first->reload;
connected(2, @nodes);
$first->change('one', 'new', 'after a reload');
everywhere(\@nodes, 'new', 'after a reload', 'after a reload its changes arrive', 10);
is(scalar(() = $first->log_text =~ /it goes on as node/g), 1, 'and it has become another node once');

# A node that shares counters can't: it says so, goes on as it is, and all else goes on.
my ($wrong, $right) = cluster(
    2,
    zones       => 'keyval_zone zone=one:1m timeout=1d state=state/one.json sync; keyval_zone zone=sums:1m type=counter sync;',
    not_started => 1,
);
$_->worker_folder('state') for $wrong, $right;
$wrong->write_file('state/one.json', qq({\n"ahead":{"value":"of the future","version":"$ahead.$of"}\n}\n));
$_->start for $wrong, $right;
ok(scalar $wrong->wait_log(qr/was mended, as its peers' clocks say, but zone "sums" has counters or limits: nothing is stamped anew/, 20),
    'a node with counters says that it stamps nothing anew') or diag($wrong->tail(20));
$wrong->add('sums', 'k', '5');
everywhere_is([ $wrong, $right ], sub { $_[0]->keyvals('sums')->{k} }, '5', 'what is added there is everywhere');
is($wrong->keyvals('one')->{ahead}, 'of the future', 'it has what it had');
is($right->keyvals('one')->{ahead}, undef,           '... and others take it when its time has come');
my $text = $wrong->log_text;
is(scalar(() = $text =~ /nothing is stamped anew/g), 1, 'it has said it once');
unlike($text, qr/it goes on as node/, '... and is the node that it was');

done_testing;
