# A zone that is full refuses what is new with 507, keeps all that it had, and takes writes again when there is room.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $node = node(workers => 2, http => <<'CONF')->start;
    keyval_zone zone=small:64k timeout=1h;
    keyval_zone zone=smallest:32k timeout=1h sync;
    keyval $arg_key $value zone=small;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api  { api write=on; }
        location /read { return 200 "$value"; }
        location /set  { set $value $arg_v; return 200 "[$value]"; }
    }
CONF

my $url   = '/api/9/http/keyvals/small';
my $value = 'v' x 100;

# Fills the zone: (the pairs that it took, the last answer). Memory is dealt out in pages, so a key may fit where the one
# before it didn't: full is when a hundred in a row don't.
sub fill {
    my ($prefix, $pair) = @_;
    my ($i, $refused, $answer, %had) = (0, 0);
    while ($refused < 100 && $i < 3_000) {
        my $key  = "$prefix " . $i++;
        my $next = $node->post($url, "{\"$key\":$pair}");
        if ($next->status == 201) { $had{$key} = $value; $refused = 0 }
        else                      { $answer = $next; $refused++ }
    }
    return (\%had, $answer);
}

my ($had, $answer) = fill('key', "\"$value\"");
my %had = %$had;
my $n   = keys %had;
is($answer->status, 507, 'a full zone answers 507');
cmp_ok($n, '>', 100, "... after $n pairs");
is($answer->json->{error}{code}, 'KeyvalNoMemory', '... with the code KeyvalNoMemory');
is($answer->json->{error}{status}, 507, '... and the status in the body');
is_deeply($node->keyvals('small'), \%had, 'and keeps all that it had, and nothing of what it refused');

my @failed = grep { $node->change('small', $_, 'w' x 100) != 204 } sort keys %had;
is("@failed", '', 'each pair can be changed to a value of the same size');
$_ = 'w' x 100 for values %had;
my $large = 'x' x 30_000;
is($node->change('small', 'key 1', $large), 507, 'a change that does not fit is refused');
is($node->get('/read?key=key')->status, 200, 'variables are read');
is($node->keyvals('small')->{'key 1'}, 'w' x 100, '... and the pair keeps the value that it had');
is($node->get("/set?key=new&v=$value")->body, '[]', 'a variable that is set finds no room');
ok(scalar $node->wait_log(qr/\[(?:error|warn|alert|crit)\].*"?small"?/), '... which is logged with the name of the zone') or diag($node->tail(10));
my ($lines, $began) = (scalar($node->grep_log(qr/can't write to keyval zone "small"/)), time);
$node->get("/set?key=new$_&v=$value") for 1 .. 100;
my $workers = () = $node->workers;
cmp_ok($node->grep_log(qr/can't write to keyval zone "small"/) - $lines, '<=', $workers * (1 + time - $began),
    '... a line a second of each worker, however many are refused');
is_deeply($node->keyvals('small'), \%had, 'everything is as it was');

is($node->drop('small', "key $_"), 204, "deleting works in a full zone ($_)") for 0, 2 .. 30;
delete $had{"key $_"} for 0, 2 .. 30;
is($node->add('small', 'new', $value), 201, 'there is room again');
$had{new} = $value;
is_deeply($node->keyvals('small'), \%had, '... and everything else is as it was');

is($node->clear('small'), 204, 'the zone is emptied');
my $again;
for my $round (1 .. 4) {
    ($again) = fill("round $round", "\"$value\"");
    $node->clear('small') if $round < 4;
}
cmp_ok(scalar keys %$again, '>=', $n * 0.9, '... and four rounds later it holds as much as at first: ' . keys(%$again) . " of $n");

# Pairs that have ended make room by themselves.
$node->clear('small');
is($node->patch($url, '{"b":{"value":"v","expire":1}}')->status, 404, 'PATCH adds nothing');
my ($brief) = fill('brief', "{\"value\":\"$value\",\"expire\":1500}");
cmp_ok(scalar keys %$brief, '>', 100, 'a zone full of pairs that live 1.5 s');
eventually_is { $node->add('small', 'after', $value) } 201, '... takes others when they have ended', 5;

# One body with too much: all or nothing would be nicer, but nothing may be half written or lost.
$node->clear('small');
my %many = map { ("key $_" => $value) } 1 .. 2_000;
is($node->post($url, ZoneMesh::Node::encode(\%many))->status, 507, 'a body with more pairs than fit is refused');
my $left = $node->keyvals('small');
is(scalar(grep { $left->{$_} ne $value } keys %$left), 0, '... and no pair is half written');
$node->clear('small');
is($node->add('small', 'k', 'v'), 201, '... and the zone goes on');

# What README says of the smallest zone.
my ($taken, $refused) = (0, 0);
for (my $i = 0; $refused < 50; $i++) {
    my $pair = sprintf '{"%016d":"%016d"}', $i, $i;
    if ($node->post('/api/9/http/keyvals/smallest', $pair)->status == 201) { $taken++; $refused = 0 }
    else                                                                   { $refused++ }
}
cmp_ok($taken, '>=', 230, "the smallest zone holds $taken pairs of 16 + 16 bytes");

done_testing;
