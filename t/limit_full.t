# limit_req on zones that are full: those keys are given up that were asked for longest ago, whatever they are long, on nginx's own
# zones and on those with `sync`.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my ($KEYS, $TRIED) = (8000, 300);
# The zone of nginx's own is larger, as its blocks are: each holds some 2,000 keys.
my %size = (plain => '256k', sync => '192k');
# What fills the second pair of zones, and what comes then: keys as long as addresses of both kinds, and others.
my @lengths = ([ 16, 4 ], [ 4, 16 ], [ 40, 16 ]);
my @kinds = map { my $kind = $_; ($kind, map { "$kind$_" } 0 .. $#lengths) } sort keys %size;
my $http = "keepalive_requests 1000000; limit_req_dry_run on; limit_req_log_level info;\n";
for my $zone (@kinds) {
    my ($kind) = $zone =~ /^(\D+)/;
    my $sync = $kind eq 'sync' ? 'sync' : '';
    $http .= "limit_req_zone \$arg_k zone=$zone:$size{$kind} rate=1r/m $sync;\n";
}
$http .= 'server { listen 127.0.0.1:%%PORT%%; add_header X-Status $limit_req_status; location /api { api; }'
    . join('', map { "location = /$_ { limit_req zone=$_; alias %%PREFIX%%/page; }" } @kinds) . '}';
my $node = node(http => "error_log logs/error.log warn;\n$http");
$node->write_file('page', "a page\n");
$node->start;

# Asks once for each key, over one connection: what became of each.
my $begin = 'key';
sub ask {
    my ($kind, @keys) = @_;
    my ($socket, @got) = tcp($node->port);
    while (my @some = splice @keys, 0, 100) {
        print {$socket} map { "HEAD /$kind?k=$begin$_ HTTP/1.1\r\nHost: a\r\n\r\n" } @some;
        my $bytes = '';
        until ((() = $bytes =~ /\r\n\r\n/g) == @some) {
            sysread $socket, $bytes, 65_536, length $bytes or die "the connection was closed after: $bytes\n";
        }
        push @got, $bytes =~ /^X-Status: (\S+)/mgi;
    }
    return @got;
}
# How many of these keys are known: asked for a second time, one would have been refused.
sub known { my ($kind, @keys) = @_; return scalar grep { $_ eq 'REJECTED_DRY_RUN' } ask($kind, @keys) }

for my $kind (sort keys %size) {
    is(scalar(grep { $_ eq 'PASSED' } ask($kind, 1 .. $KEYS)), $KEYS, "$kind: each key passes, although they don't fit");
    my $slots = $node->get("/api/9/slabs/$kind")->json->{slots};
    my ($held) = sort { $b <=> $a } map { $_->{used} } values %$slots;
    cmp_ok($held, '>', 1000, "... the zone holds many ($held)");
    cmp_ok($held, '<', $KEYS / 2, '... but not most of them');
    my $last = $kind eq 'sync' ? int $held * 3 / 4 : $held - 10;
    is(known($kind, $KEYS - $TRIED + 1 .. $KEYS), $TRIED, '... the last ones are known');
    is(known($kind, $KEYS - $last + 1 .. $KEYS - $last + $TRIED), $TRIED, '... and those of a while ago');
    is(known($kind, 1 .. $TRIED), 0, '... the first ones are not');
}
my $zone = $node->get('/api/9/zonemesh/zones/sync')->json;
is($zone->{refusals}, 0, 'nothing was refused for want of room');
cmp_ok($zone->{evictions}, '>', $KEYS / 2, '... as room was made');

# A key that is asked for again and again outlives all others, though it is only refused.
$begin = '';
for my $kind (sort keys %size) {
    for my $n (0 .. $#lengths) {
        my ($filling, $coming) = @{ $lengths[$n] };
        my ($zone, $last, $lost) = ("$kind$n", 0, 0);
        my $some = sub { my ($length, $count) = @_; return map { sprintf "%0${length}d", ++$last } 1 .. $count };
        ask($zone, $some->($filling, 3000));
        my @busy = map { my $digits = $_ - 1; map { sprintf "b%0${digits}d", $_ } 1 .. 20 } $filling, $coming;
        ask($zone, @busy);
        for my $round (1 .. 30) {
            ask($zone, $some->($coming, 150));
            $lost += @busy - known($zone, @busy);
        }
        # With sync, keys whose place in the index is crowded share their mark of use: see docs/limits.md.
        cmp_ok($lost, '<=', { plain => 0, sync => @busy * 30 / 50 }->{$kind},
            "$kind: keys of $filling bytes, then of $coming: those that are limited stay limited ($lost times one didn't)");
        cmp_ok(known($zone, map { sprintf "%0${coming}d", $_ } $last - 499 .. $last), '>=', 490, '... and the last ones are known');
        cmp_ok(known($zone, map { sprintf "%0${filling}d", $_ } 1 .. 500), '<=', 10, '... but not the first ones');
    }
}

done_testing;
