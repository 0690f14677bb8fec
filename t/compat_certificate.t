# `ssl_certificate data:$variable`: certificates from zones, chosen by the name that the client asks for. nginx evaluates
# these variables in the handshake, when there is no request yet. The same in stream, from the same zones.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $stream_port = port();
my $node = node(workers => 2, vars => { STREAM => $stream_port }, http => <<'HTTP', stream => <<'STREAM')->start;
    keyval_zone zone=certificates:1m;
    keyval_zone zone=keys:1m;
    keyval $ssl_server_name $certificate zone=certificates;
    keyval $ssl_server_name $key         zone=keys;

    server {
        listen 127.0.0.1:%%PORT%%;
        location /api { api write=on; }
    }
    server {
        listen 127.0.0.1:%%SYNC%% ssl;
        ssl_certificate     data:$certificate;
        ssl_certificate_key data:$key;
        return 200 "certificate of $ssl_server_name\n";
    }
HTTP
    keyval $ssl_server_name $certificate zone=certificates;
    keyval $ssl_server_name $key         zone=keys;
    server {
        listen 127.0.0.1:%%STREAM%% ssl;
        ssl_certificate     data:$certificate;
        ssl_certificate_key data:$key;
        return "certificate of $ssl_server_name\n";
    }
STREAM

my $ca = authority('the CA');

# Who answers a client that asks for a name: the common name, or '' if the handshake fails.
sub asked_for {
    my ($name, $port) = @_;
    $port //= $node->sync;
    my $said = `timeout 5 openssl s_client -connect 127.0.0.1:$port -servername $name -CAfile '@{[ $ca->file ]}' 2>&1 </dev/null`;
    my ($subject) = $said =~ /^subject=CN ?= ?(\S+)/m;
    return $subject // '';
}

sub put {
    my ($name, $certificate, $key) = @_;
    for ([ certificates => $certificate ], [ keys => $key ]) {
        my ($zone, $file) = @$_;
        my $pem = ZoneMesh::Node::slurp($file);
        my $status = exists $node->keyvals($zone)->{$name} ? $node->change($zone, $name, $pem) : $node->add($zone, $name, $pem);
        like($status, qr/^20[14]$/, "$name: $zone");
    }
    return;
}

is(asked_for('a.test'), '', 'no certificate, no handshake');
put('a.test', $ca->issue('a.test'));
put('b.test', $ca->issue('b.test'));
is(asked_for('a.test'), 'a.test', 'the certificate of the name');
is(asked_for('b.test'), 'b.test', '... and of the other name');
is(asked_for('c.test'), '', 'a name that has none');
is(asked_for('a.test', $stream_port), 'a.test', 'stream: the certificate of the name');
is(asked_for('b.test', $stream_port), 'b.test', 'stream: ... and of the other name');
is(asked_for('c.test', $stream_port), '', 'stream: a name that has none');

# Renewed, without a reload.
put('a.test', $ca->issue('renewed', dns => ['a.test']));
is(asked_for('a.test'), 'renewed', 'the next handshake has what was put in the place of it');
is(asked_for('b.test'), 'b.test', '... and of others what they had');
is(asked_for('a.test', $stream_port), 'renewed', 'stream: what was put in the place of it');

# Broken ones do no harm.
is($node->change('certificates', 'b.test', 'this is no certificate'), 204, 'something that is no certificate');
is(asked_for('b.test'), '', '... no handshake');
is($node->drop('keys', 'a.test'), 204, 'a certificate without its key');
is(asked_for('a.test'), '', '... no handshake');
put('a.test', $ca->issue('a.test'));
is(asked_for('a.test'), 'a.test', 'and the rest goes on');
is(scalar(() = $node->grep_log(qr/exited on signal/)), 0, 'no worker has died');

$node->reload;
is(asked_for('a.test'), 'a.test', 'after a reload, too');

done_testing;
