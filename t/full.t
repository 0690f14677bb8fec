# A zone that is full refuses what is new with 507, keeps all that it had, and takes writes again when there is room.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $node = node(workers => 2, http => <<'CONF')->start;
    keyval_zone zone=small:64k timeout=1h;
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
my ($n, $answer) = (0);
while ($n < 2_000) {
    $answer = $node->post($url, "{\"key $n\":\"$value\"}");
    last if $answer->status != 201;
    $n++;
}
is($answer->status, 507, 'a full zone answers 507');
cmp_ok($n, '>', 100, "... after $n pairs");
is($answer->json->{error}{code}, 'KeyvalNoMemory', '... with the code KeyvalNoMemory');
is($answer->json->{error}{status}, 507, '... and the status in the body');
my %had = map { ("key $_" => $value) } 0 .. $n - 1;
is_deeply($node->keyvals('small'), \%had, 'and keeps all that it had, and nothing of what it refused');

is($node->change('small', "key $_", 'w' x 100), 204, "a pair is changed to a value of the same size ($_)") for 0 .. 20;
$had{"key $_"} = 'w' x 100 for 0 .. 20;
my $large = 'x' x 30_000;
is($node->change('small', 'key 1', $large), 507, 'a change that does not fit is refused');
is($node->get('/read?key=key')->status, 200, 'variables are read');
is($node->keyvals('small')->{'key 1'}, 'w' x 100, '... and the pair keeps the value that it had');
is($node->get("/set?key=new&v=$value")->body, '[]', 'a variable that is set finds no room');
ok(scalar $node->wait_log(qr/\[(?:error|warn|alert|crit)\].*"?small"?/), '... which is logged with the name of the zone') or diag($node->tail(10));
is_deeply($node->keyvals('small'), \%had, 'everything is as it was');

is($node->drop('small', "key $_"), 204, "deleting works in a full zone ($_)") for 30 .. 59;
delete $had{"key $_"} for 30 .. 59;
is($node->add('small', 'new', $value), 201, 'there is room again');
$had{new} = $value;
is_deeply($node->keyvals('small'), \%had, '... and everything else is as it was');

is($node->clear('small'), 204, 'the zone is emptied');
my $again = 0;
$again++ while $again < $n * 2 && $node->add('small', "more $again", $value) == 201;
cmp_ok($again, '>=', $n * 0.9, "... and holds as much as before ($again of $n)");

# Round after round: nothing is used up for good.
for my $round (1 .. 5) {
    $node->clear('small');
    $again = 0;
    $again++ while $again < $n * 2 && $node->add('small', "$round $again", $value) == 201;
}
cmp_ok($again, '>=', $n * 0.9, "after five rounds it still does ($again of $n)");

# Expired pairs make room by themselves.
$node->clear('small');
is($node->patch($url, "{\"b\":{\"value\":\"$value\",\"expire\":1}}")->status, 404, 'PATCH adds nothing');
my $brief = 0;
while ($brief < $n * 2) {
    last if $node->post($url, "{\"brief $brief\":{\"value\":\"$value\",\"expire\":700}}")->status == 507;
    $brief++;
}
eventually { $node->add('small', 'after', $value) == 201 } 'pairs that have ended make room', 5;

# One body with too much: all or nothing would be nicer, but nothing may be half written or lost.
$node->clear('small');
my %many = map { ("key $_" => $value) } 1 .. 2_000;
is($node->post($url, ZoneMesh::Node::encode(\%many))->status, 507, 'a body with more pairs than fit is refused');
my $left = $node->keyvals('small');
is(scalar(grep { $left->{$_} ne $value } keys %$left), 0, '... and no pair is half written');
$node->clear('small');
is($node->add('small', 'k', 'v'), 201, '... and the zone goes on');

done_testing;
