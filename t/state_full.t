# A zone that is as full as can be comes back whole from its state file, whatever was done to it: nginx made the file itself.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $node = node(workers => 2, http => <<'CONF');
    keyval_zone zone=one:64k state=state/one.json;
    keyval_zone zone=many:1m state=state/many.json;
    server {
        listen 127.0.0.1:%%PORT%%;
        client_max_body_size 0;
        location /api { api write=on; }
    }
CONF
$node->worker_folder('state');
$node->start;

sub import_lines { return $node->post("/api/9/zonemesh/keyvals/$_[0]", join('', map { "$_\n" } @_[1 .. $#_]), timeout => 30) }
sub saved { return !$node->get("/api/9/zonemesh/zones/$_[0]")->json->{state}{pending} }

my %was;
for my $zone ('one', 'many') {
    # Far more than fit, of many sizes; then about half of them change theirs, and what that makes room for is filled.
    import_lines($zone, map { "{\"key $_\":\"" . 'v' x (20 + $_ * 37 % 900) . '"}' } 1 .. 6000);
    my @keys = sort keys %{ $node->keyvals($zone) };
    cmp_ok(scalar @keys, '>', 40, "$zone: " . @keys . ' pairs before the first change');
    import_lines($zone, map { "{\"$keys[$_]\":\"" . 'w' x ($_ * 53 % 1200) . '"}' } grep { $_ % 2 } 0 .. $#keys);
    my $late = import_lines($zone, map { "{\"late $_\":\"" . 'x' x (10 + $_ * 17 % 200) . '"}' } 1 .. 3000);
    is($late->status, 507, '... and the zone is full') or diag($late->body);
    $was{$zone} = $node->keyvals($zone);
    eventually { saved($zone) } '... and saved';
}
for my $way ('quit', 'crash') {
    $node->$way;
    $node->start;
    is_deeply($node->keyvals($_), $was{$_}, "$_: after $way and start all is there") for 'one', 'many';
}
my $zone = $node->get('/api/9/zonemesh/zones/many')->json;
is($zone->{records}, scalar(keys %{ $was{many} }), 'and counted');

done_testing;
