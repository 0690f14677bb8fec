# How many records zones hold: what README.md says, of zones as nginx gives them (it keeps a part for itself).

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $node = node(workers => 1, http => <<'CONF')->start;
    keyval_zone zone=smallest:32k timeout=1h sync;
    keyval_zone zone=large:32m timeout=1h sync;
    server {
        listen 127.0.0.1:%%PORT%%;
        client_max_body_size 0;
        location /api { api write=on; }
    }
CONF

# Records of 16 + 16 bytes that are taken before the first is refused, to about so many: they are offered in such heaps.
sub count {
    my ($zone, $heap, $sure) = @_;
    my $offer = sub {
        my ($from, $to) = @_;
        my $lines = join '', map { my $n = sprintf '%016d', $_; "{\"$n\":\"$n\"}\n" } $from .. $to - 1;
        return $node->post("/api/9/zonemesh/keyvals/$zone", $lines, timeout => 60)->status == 200;
    };
    my $count = $sure;
    $offer->(0, $sure) or return 0;
    $count += $heap while $count < 10 * $sure && $offer->($count, $count + $heap);
    return $count;
}

my $readme = ZoneMesh::Node::slurp("$FindBin::Bin/../README.md");
my ($smallest, $large) = $readme =~ /from 32k \(some ([\d,]+) records of 16 \+ 16 bytes\)\s+to 64g \(a 32m zone holds some ([\d,]+)\)/;
ok($large, 'README.md says how many fit') or BAIL_OUT('it says it otherwise');
tr/,//d for $smallest, $large;
my ($in_smallest, $in_large) = (count('smallest', 1, 100), count('large', 500, 400_000));
cmp_ok($in_smallest, '>=', $smallest, "zone=x:32k holds $in_smallest");
cmp_ok($in_smallest, '<=', 1.05 * $smallest, '... and not many more than README.md says');
cmp_ok($in_large, '>=', $large, "zone=x:32m holds $in_large");
cmp_ok($in_large, '<=', 1.02 * $large, '... and not many more than README.md says');

done_testing;
