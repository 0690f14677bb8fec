# type=ip: a variable finds the record of the longest network that contains the address it asks for; the API addresses
# exact keys.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $node = node(workers => 2, http => <<'CONF')->start;
    keyval_zone zone=nets:64k type=ip;
    keyval $arg_a $found zone=nets;
    keyval $remote_addr $client zone=nets;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api    { api write=on; }
        location /find   { return 200 "$found"; }
        location /set    { set $found $arg_v; return 204; }
        location /client { if ($client = deny) { return 403; } return 200 "in"; }
    }
CONF

my $url = '/api/9/http/keyvals/nets';
sub found { return $node->get('/find?a=' . $_[0])->body }

my %pairs = (
    '10.0.0.0/8'        => 'eight',
    '10.1.0.0/16'       => 'sixteen',
    '10.1.2.3'          => 'host',
    '192.168.7.9/24'    => 'host bits',
    '2001:db8::/32'     => 'six',
    '2001:DB8:1::/48'   => 'six, longer',
    '::ffff:172.16.0.0/108' => 'mapped',
);
is($node->post($url, ZoneMesh::Node::encode(\%pairs))->status, 201, 'networks of all forms are added');
is_deeply($node->keyvals('nets'), \%pairs, '... and listed as they were written');

for (
    [ '10.9.9.9',          'eight',       'an address in a network' ],
    [ '10.1.9.9',          'sixteen',     'of two networks the longer' ],
    [ '10.1.2.3',          'host',        'an address of its own before both' ],
    [ '10.1.2.3/32',       'host',        '... as a network of one address' ],
    [ '10.1.2.0/24',       'sixteen',     'a range is found by what contains it' ],
    [ '10.0.0.0/7',        '',            'a range that no record contains' ],
    [ '11.0.0.1',          '',            'an address in no network' ],
    [ '192.168.7.200',     'host bits',   'host bits of a record do not count' ],
    [ '192.168.8.1',       '',            '... and its length does' ],
    [ '2001:db8:ffff::1',  'six',         'IPv6' ],
    [ '2001:db8:1::1',     'six, longer', 'IPv6, the longer of two' ],
    [ '2001:db9::1',       '',            'IPv6, in no network' ],
    [ '172.17.1.1',        'mapped',      'an IPv4 network written within IPv6' ],
    [ '::ffff:10.1.2.3',   'host',        'an IPv4 address written within IPv6' ],
    [ '::10.1.2.3',        '',            '... but not every IPv6 address with its bits' ],
    [ '',                  '',            'nothing' ],
    [ 'unix:',             '',            'what is no address' ],
    [ '10.1.2.3.4',        '',            'what almost is one' ],
) {
    my ($address, $value, $name) = @$_;
    is(found($address), $value, "$name: '$address'");
}

# The API knows keys, not networks.
is_deeply($node->get("$url?key=10.0.0.0/8")->json, { '10.0.0.0/8' => 'eight' }, 'the API gives an exact key');
is($node->get("$url?key=10.9.9.9")->status, 404, '... and not what contains it');
is($node->change('nets', '10.9.9.9', 'x'), 404, '... nor changes it');
is($node->drop('nets', '10.1.2.3'), 204, 'deleting an address');
is(found('10.1.2.3'), 'sixteen', '... uncovers the network around it');
is($node->drop('nets', '10.1.0.0/16'), 204, 'deleting that');
is(found('10.1.2.3'), 'eight', '... the next');

for my $key ('localhost', '10.0.0.1/33', '10.0.0', '2001:db8::/129', '10.0.0.1 ', '/8') {
    my $answer = $node->post($url, ZoneMesh::Node::encode({ $key => 'x' }));
    is($answer->status, 400, "a key that is no network is refused: '$key'");
    is($answer->json->{error}{code}, 'KeyvalFormatError', '... with the code of a bad pair');
    like($answer->json->{error}{text}, qr/invalid key.*type=ip/, '... and a text that says why');
}
is($node->patch($url, '{"localhost":null}')->status, 400, 'deleting one as well');
my $many = $node->clear('nets') && $node->post($url, '{"10.0.0.1":"a","nonsense":"b"}');
is($many->status, 400, 'one bad key in a list');
is_deeply($node->keyvals('nets'), {}, '... and nothing of the list is added');

# Variables write too.
is($node->get('/set?a=10.0.0.0/24&v=written')->status, 204, 'a variable is set');
is(found('10.0.0.77'), 'written', '... under the key as it is');
$node->get('/set?a=nonsense&v=x') for 1 .. 20;
my @lines = $node->wait_log(qr/can't write to keyval zone "nets".*type=ip/);
ok(scalar @lines, 'a key that is no address is logged with the zone and the type');
cmp_ok(scalar @lines, '<', 10, '... at a bounded rate');

# The use that people have for it.
is($node->get('/client')->status, 200, 'a client that no record denies');
is($node->add('nets', '127.0.0.0/8', 'deny'), 201, 'its network is denied');
is($node->get('/client')->status, 403, '... and so is the client');

done_testing;
