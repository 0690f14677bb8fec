# State files in a cluster: nodes come back with what they had, newer wins, deletes stay deletes, and what only a file has
# reaches everybody.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;

sub slurp { return ZoneMesh::Node::slurp($_[0]) }
sub file    { return $_[0]->prefix . '/state/one.json' }
sub in_file { my ($node, $key) = @_; return json(slurp(file($node)))->{$key} }
sub saved   { return !$_[0]->get('/api/9/zonemesh/zones/one')->json->{state}{pending} }

my @nodes = my ($first, $second, $third) =
    cluster(3, zones => 'keyval_zone zone=one:1m timeout=1h state=state/one.json sync;', not_started => 1);
$_->worker_folder('state') for @nodes;
$_->start for @nodes;
connected(2, @nodes);

sub all_saved { my ($name) = @_; eventually { !grep { !saved($_) } @nodes } $name; return }

# What one node takes is in the files of all, with its version.
$first->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode({ map { ("key $_" => "value $_") } 1 .. 200 }));
everywhere(\@nodes, 'key 200', 'value 200', 'pairs are everywhere');
$second->drop('one', 'key 1');
everywhere(\@nodes, 'key 1', undef, 'a delete as well');
all_saved('all files are written');
my %versions = map { (in_file($_, 'key 2')->{version} // '') => 1 } @nodes;
is(scalar(keys %versions), 1, 'a pair has one version in the files of all');
like((keys %versions)[0], qr/^[0-9a-f]{16}\.[0-9a-f]{32}$/, '... a stamp and who wrote it');
is(in_file($third, 'key 1')->{deleted}, JSON::PP::true(), 'and the delete is there as one');

# One node is away, and comes back with its file: newer wins, whichever side it is on.
$third->quit;
$first->change('one', 'key 2', 'changed meanwhile');
$first->drop('one', 'key 3');
$first->add('one', 'new', 'meanwhile');
$third->start;
everywhere(\@nodes, 'key 2', 'changed meanwhile', 'back from its file, a node gets what was changed');
everywhere(\@nodes, 'key 3', undef, '... and deleted');
everywhere(\@nodes, 'new', 'meanwhile', '... and added');
is(scalar(keys %{ same_everywhere(\@nodes, 'one', '... and all are the same') }), 199, '... with nothing too many');

# All at once, by kill -9 and by QUIT: all comes from the files.
for my $how ('crash', 'quit') {
    $first->change('one', 'key 4', "before $how");
    $second->drop('one', "key " . ($how eq 'quit' ? 5 : 6));
    everywhere(\@nodes, 'key 4', "before $how", "$how of all: a last change");
    all_saved('... is in all files');
    my $before = $first->keyvals('one');
    $_->$how for @nodes;
    $_->start for @nodes;
    connected(2, @nodes);
    is_deeply($_->keyvals('one'), $before, $_->name . ' has all that it had') for @nodes;
    $third->change('one', 'key 7', "after $how");
    everywhere(\@nodes, 'key 7', "after $how", '... and what is written then is newer everywhere', 15);
    same_everywhere(\@nodes, 'one', '... and all are the same');
}

# What one node took and told nobody, but its file: a write, a change, a delete, an emptying of another life.
{
    $_->quit for $second, $third;
    $first->add('one', 'only here', 'v');
    $first->change('one', 'key 8', 'changed here');
    $first->drop('one', 'key 9');
    eventually { saved($first) } 'a node alone writes its file';
    $first->crash;
    $_->start for $second, $third;
    connected(1, $second, $third);
    $second->change('one', 'key 10', 'newer');
    is($second->keyvals('one')->{'key 9'}, 'value 9', 'the others have not heard of it');
    $first->start;
    connected(2, @nodes);
    everywhere(\@nodes, 'only here', 'v',            'from the file of a node that was killed: what it added', 20);
    everywhere(\@nodes, 'key 8',     'changed here', '... changed', 20);
    everywhere(\@nodes, 'key 9',     undef,          '... and deleted is everywhere', 20);
    everywhere(\@nodes, 'key 10',    'newer',        '... and what was newer has stayed', 20);
    same_everywhere(\@nodes, 'one', '... and all are the same', 20);
}

# An emptying stays one.
{
    $first->clear('one');
    everywhere_is(\@nodes, sub { scalar keys %{ $_[0]->keyvals('one') } }, 0, 'an emptying');
    $first->add('one', 'after', 'v');
    everywhere(\@nodes, 'after', 'v', '... and a pair after it');
    eventually { saved($first) } '... are in the file';
    # The others are back from before it, with nothing but their old files.
    my %old = map { my $node = $_; ($node->name => (my $text = slurp(file($node)))) } $second, $third;
    $_->quit for @nodes;
    for my $node ($second, $third) {
        open my $out, '>', file($node) or die $!;
        print {$out} '{"ghost":{"value":"v","version":"0000000000010000.' . ('ab' x 16) . '"}}';
        close $out;
    }
    $_->start for $second, $third;
    is($second->keyvals('one')->{ghost}, 'v', 'others with a file from before the emptying');
    $first->start;
    connected(2, @nodes);
    everywhere(\@nodes, 'after', 'v', 'a node that knows of the emptying comes back', 20);
    everywhere(\@nodes, 'ghost', undef, '... and what is older than it is gone', 20);
}

# A file without versions takes its own time: older than what the cluster wrote since, newer than what it wrote before.
{
    $second->add('one', 'mine', 'before the file');
    everywhere(\@nodes, 'mine', 'before the file', 'a pair');
    $first->quit;
    sleep 0.05;
    open my $out, '>', file($first) or die $!;
    print {$out} '{"mine":"by hand","theirs":"by hand"}';
    close $out;
    sleep 0.05;
    $second->add('one', 'theirs', 'after the file');
    $first->start;
    connected(2, @nodes);
    everywhere(\@nodes, 'mine',   'by hand',        'a file written by hand is newer than what was before it', 20);
    everywhere(\@nodes, 'theirs', 'after the file', '... and older than what came after', 20);
}

done_testing;
