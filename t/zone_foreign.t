# A reload that finds memory which it can't read, of another layout or damaged, begins with an empty zone, says so, and gets
# the records from the other nodes. It never misreads.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Memory;

my @nodes = my ($first, $second) = cluster(2);
$first->add('one', "key $_", "value $_") for 1 .. 50;
everywhere(\@nodes, 'key 50', 'value 50', 'two nodes with 50 records');

# Offset in the header, and what the log must say.
my @damages = (
    [ 8,  'its version is another', qr/it was laid out by another version/ ],
    [ 16, 'its size is another',    qr/its size is not the one that it was made with/ ],
    [ 3,  'its first word is another', qr/it doesn't begin as a zone does/ ],
);
for my $damage (@damages) {
    my ($offset, $what, $pattern) = @$damage;
    my ($zone) = ZoneMesh::Memory->zones($first->pid);
    ok($zone, "$what: the zone is found in memory");
    my $mapped = ZoneMesh::Memory->mappings($first->pid);
    $zone->write($offset, chr(ord($zone->read($offset, 1)) ^ 0x40));
    my $before = () = $first->grep_log(qr/starts empty/);
    $first->reload;
    my @said = $first->wait_log(qr/starts empty/, 5, $before);
    like($said[-1], qr/\[warn\].*keyval_zone "one" in .*nginx\.conf:\d+ starts empty: the memory holds nothing that this version can use: $pattern/,
        '... a reload says that it starts empty, and why');
    same_everywhere(\@nodes, 'one', '... the other node fills it again');
    is(scalar(keys %{ $first->keyvals('one') }), 50, '... with all records');
    is($first->add('one', "after $offset", 'v'), 201, '... and it takes writes');
    everywhere(\@nodes, "after $offset", 'v', '... that reach the other node');
    is($first->drop('one', "after $offset"), 204, '... and deletes');
    is(ZoneMesh::Memory->mappings($first->pid), $mapped, '... the old memory was given back');
    # What was new in the last configuration is kept by the next.
    my $count = () = $first->grep_log(qr/starts empty/);
    $first->reload for 1 .. 2;
    is(scalar(my @now = $first->grep_log(qr/starts empty/)), $count, '... further reloads keep it');
    same_everywhere(\@nodes, 'one', '... with its records');
}

# Another build of the module: its zones are its own.
my $copy = $first->prefix . '/other_zonemesh_module.so';
require File::Copy;
File::Copy::copy(ZoneMesh::Node::module_file('zonemesh'), $copy) or die "copy: $!";
my $before = () = $first->grep_log(qr/starts empty/);
$first->reload(modules => [ 'stream', $copy ]);
my @said = $first->wait_log(qr/starts empty/, 5, $before);
like($said[-1], qr/keyval_zone "one" in .* starts empty: .*another build/, 'another module file starts with an empty zone and says so');
same_everywhere(\@nodes, 'one', '... the other node fills it');
is(scalar(keys %{ $first->keyvals('one') }), 50, '... with all records');
$first->reload;
same_everywhere(\@nodes, 'one', '... which the next reload keeps');

done_testing;
