# keyval and keyval_zone: variables that look records up at every access, and write them when they are set.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $node = node(workers => 2, http => <<'CONF')->start;
    # a keyval may come before its zone
    keyval $arg_key $value zone=one;
    keyval_zone zone=one:1m timeout=1h;

    keyval $arg_a:$arg_b           $unquoted zone=one;
    keyval "<${arg_a}> $arg_b!"    $quoted   zone=one;
    keyval constant                $constant zone=one;
    keyval "a constant with \"!"   $spaced   zone=one;
    keyval $later                  $by_set   zone=one;
    keyval $http_x_key             $by_header zone=one;

    keyval_zone zone=two:64k;
    keyval $arg_key $other zone=two;

    keyval_zone zone=a/b.c-d_e:64k;
    keyval $arg_key $slashed zone=a/b.c-d_e;

    keyval_zone zone=brief:64k timeout=400ms;
    keyval $arg_key $brief zone=brief;
    keyval_zone zone=brief_ttl:64k ttl=400ms;
    keyval $arg_key $brief_ttl zone=brief_ttl;

    map $value $mapped { default no; "yes" mapped; }

    server {
        listen 127.0.0.1:%%PORT%% reuseport;

        location /api        { api write=on; }
        location /read       { return 200 "[$value]"; }
        location /unquoted   { return 200 "[$unquoted]"; }
        location /quoted     { return 200 "[$quoted]"; }
        location /constant   { return 200 "[$constant]"; }
        location /spaced     { return 200 "[$spaced]"; }
        location /other      { return 200 "[$other]"; }
        location /slashed    { return 200 "[$slashed]"; }
        location /mapped     { return 200 "[$mapped]"; }
        location /brief      { return 200 "[$brief]"; }
        location /brief_ttl  { return 200 "[$brief_ttl]"; }
        location /header     { return 200 "[$by_header]"; }
        location /pid        { return 200 "$pid [$value]"; }

        location /set        { set $value $arg_v; return 200 "[$value]"; }
        location /set_brief  { set $brief $arg_v; return 204; }
        location /set_header { set $by_header $http_x_value; return 204; }
        location /fresh      { set $before $value; set $value changed; return 200 "[$before] [$value]"; }
        location /keys       { set $later k1; set $first $by_set; set $later k2; return 200 "[$first] [$by_set]"; }
        location /if         { if ($value) { return 403; } return 200 pass; }
    }
CONF

sub body { return $node->get(@_)->body }

# Look-ups.

is(body('/read?key=nothing'), '[]', 'a key that is not there gives an empty value');
is(body('/read'), '[]', 'an empty key, too');

is($node->add('one', 'k1', 'v1'), 201, 'a pair is added by the API');
is(body('/read?key=k1'),  '[v1]', 'the key of a variable');
is(body('/read?key=K1'),  '[]',   'keys are compared exactly');
is(body('/read?key=k'),   '[]',   'the beginning of a key is not the key');
is(body('/other?key=k1'), '[]',   'another zone is another zone');

$node->add('one', $_, "value of $_") for 'x:y', '<x> y!', 'constant', 'a constant with "!';
is(body('/unquoted?a=x&b=y'), '[value of x:y]',    'a key of variables and text, unquoted');
is(body('/quoted?a=x&b=y'),   '[value of <x> y!]', 'a key of variables and text, quoted');
is(body('/unquoted?a=x'),     '[]',                'a key whose second variable is empty is another key');
is(body('/constant'),         '[value of constant]', 'a constant key');
is(body('/spaced'), '[value of a constant with "!]', 'a constant key with spaces and a quote');

is($node->change('one', 'k1', 'v2'), 204, 'the pair is changed by the API');
is(body('/read?key=k1'), '[v2]', 'the variable has the new value');
is($node->drop('one', 'k1'), 204, 'the pair is deleted by the API');
is(body('/read?key=k1'), '[]', 'the variable is empty again');

is($node->add('a/b.c-d_e', 'k', 'v'), 201, 'a zone name with a slash, a dot, a dash and an underscore');
is(body('/slashed?key=k'), '[v]', '... and its variable');

# Setting.

is(body('/set?key=s1&v=one'), '[one]', 'set writes, and the same request reads what it wrote');
is(body('/read?key=s1'), '[one]', 'another request reads it');
is_deeply($node->get('/api/9/http/keyvals/one?key=s1')->json, { s1 => 'one' }, 'the API has it');
is(body('/set?key=s1&v=two'), '[two]', 'set replaces');
is($node->keyvals('one')->{s1}, 'two', '... for the API, too');
is($node->keyvals('two')->{s1}, undef, '... in this zone only');

# At every access.

$node->add('one', 'f', 'old');
is(body('/fresh?key=f'), '[old] [changed]', 'a value is looked up at every access, not once in a request');
$node->add('one', $_, "value of $_") for qw(k1 k2);
is(body('/keys'), '[value of k1] [value of k2]', 'so is the key');
$node->add('one', 'm', 'yes');
is(body('/mapped?key=m'), '[mapped]', 'in a map');
is($node->get('/if?key=m')->status, 403, 'in an if');
is($node->get('/if?key=nothing')->status, 200, '... which takes a missing key for false');

# Bytes.

my $key   = join '', map { chr } 1 .. 8, 11, 12, 14 .. 31, 33 .. 126, 127 .. 255;
my $value = reverse $key;
is($node->get('/set_header', headers => [ 'X-Key' => $key, 'X-Value' => $value ])->status, 204,
    'a key and a value of all bytes that a header can hold are set');
is(body('/header', headers => [ 'X-Key' => $key ]), "[$value]", '... and read byte for byte');
is(body('/header', headers => [ 'X-Key' => substr $key, 0, -1 ]), '[]', '... and without the last byte it is another key');
is($node->delete('/api/9/http/keyvals/one')->status, 204, 'the zone is emptied');
is(body('/header', headers => [ 'X-Key' => $key ]), '[]', '... with that key');

is($node->post('/api/9/http/keyvals/one', '{"nul":"a\u0000b\u0000"}')->status, 201, 'a value with NUL bytes');
is(body('/read?key=nul'), "[a\0b\0]", '... comes out whole');
my $long = join '', map { "$_," } 1 .. 40_000;
is($node->add('one', 'long', $long), 201, 'a value of ' . length($long) . ' bytes');
ok(body('/read?key=long') eq "[$long]", '... comes out whole');

# Expiry.

for my $zone (qw(brief brief_ttl)) {
    my $began = time;
    is($node->add($zone, 'k', 'v'), 201, "$zone: a pair in a zone whose pairs live 400 ms");
    my $first = body("/$zone?key=k");
    my $took  = time - $began;
    is($first, '[v]', "$zone: is there at first") if $took < 0.4;
    eventually_is { body("/$zone?key=k") } '[]', "$zone: is gone after a while", 2;
    cmp_ok(time - $began, '>=', 0.4, "$zone: but not before its time");
    is_deeply($node->keyvals($zone), {}, "$zone: the API does not list it any more");
    is($node->add($zone, 'k', 'again'), 201, "$zone: it can be added again: it is not there");
}

{
    is($node->get('/set_brief?key=renewed&v=1')->status, 204, 'a pair written by set has the timeout of its zone');
    my $began = time;
    my $alive = 1;
    while (time - $began < 0.8) {
        my $before = time;
        my $there  = body('/brief?key=renewed') eq '[1]';
        # only counts if this machine was quick enough to renew it in time
        $alive = 0 if !$there && time - $before < 0.1;
        $node->get('/set_brief?key=renewed&v=1');
        sleep 0.1;
    }
    ok($alive, 'a pair that is written again and again outlives the timeout');
    eventually_is { body('/brief?key=renewed') } '[]', '... and ends when it no longer is', 2;
}

is($node->post('/api/9/http/keyvals/one', '{"e":{"value":"v","expire":300}}')->status, 201,
    'a pair with an expire of its own, shorter than the timeout of the zone');
eventually_is { body('/read?key=e') } '[]', '... ends by it', 2;
is($node->post('/api/9/http/keyvals/brief', '{"e":{"value":"v","expire":5000}}')->status, 201,
    'a pair with an expire longer than the timeout of the zone');
$node->add('brief', 'mark', 1);
eventually_is { body('/brief?key=mark') } '[]', 'when another pair of the zone has ended', 2;
is(body('/brief?key=e'), '[v]', '... it is still there');

# Workers.

{
    $node->add('one', 'shared', 'by all');
    my %seen;
    wait_for(sub { my ($pid, $got) = split / /, body('/pid?key=shared'), 2; $seen{$pid} = $got; keys %seen == 2 }, 10, 0);
    is(keys %seen, 2, 'both workers were asked');
    is_deeply([ values %seen ], [ '[by all]', '[by all]' ], 'both see the same');
}

done_testing;
