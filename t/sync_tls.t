# Two nodes over mutual TLS, and who is kept out.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Wire;

my $ca    = authority('the CA of the cluster');
my $alien = authority('another CA');

{
    my @nodes = my ($a, $b) = cluster(2, tls => $ca);
    is($a->add('one', 'k', 'v'), 201, 'written on one node');
    everywhere(\@nodes, 'k', 'v', 'read on the other');
    is($b->drop('one', 'k'), 204, 'deleted there');
    everywhere(\@nodes, 'k', undef, 'gone on both');
    is($b->add('one', 'stays', 'v'), 201, 'a key that is to stay');
    everywhere(\@nodes, 'stays', 'v', '... on both');

    # Who has no right certificate gets no byte of the protocol, and can't write one.
    my ($wrong, $wrong_key) = $alien->issue('intruder');
    my ($right, $right_key) = $ca->issue('friend');
    my ($old,   $old_key)   = $ca->issue('expired', days => -1);
    for (
        [ 'no certificate',              [] ],
        [ 'a certificate of another CA', [ '-cert', $wrong, '-key', $wrong_key ] ],
        [ 'a certificate that expired',  [ '-cert', $old,   '-key', $old_key ] ],
    ) {
        my ($name, $arguments) = @$_;
        my ($said, $took) = s_client($a, $arguments, 2);
        is($said, '', "$name: it says hello, and nothing is said to it");
        cmp_ok($took, '<', 2, "$name: its connection is closed");
    }
    my ($said) = s_client($a, [ '-cert', $right, '-key', $right_key ], 2);
    is((frames($said))[0][0], $TYPE{HELLO}, 'the right certificate: it is greeted');

    my $socket = tcp($a->sync);
    closes_within($socket, 5, 'a silent client that begins no TLS is closed');
    $socket = tcp($a->sync);
    print {$socket} "this is no TLS\n" x 10;
    closes_within($socket, 2, 'so is one that speaks something else');
    is_deeply($_->keyvals('one'), { stays => 'v' }, $_->name . ': the zone is as it was') for @nodes;
    is($a->add('one', 'more', 'x'), 201, 'and the cluster');
    everywhere(\@nodes, 'more', 'x', '... goes on');
}

# What a node demands of the one it goes to. `b` shows the certificate; `a` must not send it anything.
sub pair {
    my ($certificate, $key, $more) = @_;
    my ($mine, $my_key) = $ca->issue('a', ip => ['127.0.0.1']);
    my $b = node(name => 'b');
    my $a = node(name => 'a');
    my $api = 'keyval_zone zone=one:1m timeout=1h sync; server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } }';
    $b->configure(http => $api, stream => "server { listen 127.0.0.1:%%SYNC%% ssl; zone_sync; zone_sync_timeout 1s;
        ssl_certificate $certificate; ssl_certificate_key $key; }");
    $a->configure(http => $api, stream => "server { listen 127.0.0.1:%%SYNC%%; zone_sync; $ZoneMesh::Cluster::QUICK
        zone_sync_server 127.0.0.1:@{[ $b->sync ]}; zone_sync_ssl on; $more
        zone_sync_ssl_certificate $mine; zone_sync_ssl_certificate_key $my_key; }");
    $_->start for $b, $a;
    $a->add('one', 'secret', 'v');
    return ($a, $b);
}

my $verify = "zone_sync_ssl_verify on; zone_sync_ssl_trusted_certificate @{[ $ca->file ]};";
for (
    [ 'a certificate of another CA', [ $alien->issue('b1', ip => ['127.0.0.1']) ], $verify, qr/issuer|UnknownIssuer|authority/i ],
    [ 'a certificate for another name', [ $ca->issue('b2', dns => ['elsewhere']) ], $verify, qr/name/i ],
    [ 'a certificate that expired', [ $ca->issue('b3', ip => ['127.0.0.1'], days => -1) ], $verify, qr/expired/i ],
    [ 'a certificate without the name demanded', [ $ca->issue('b4', ip => ['127.0.0.1']) ], "$verify zone_sync_ssl_name b4.test;", qr/b4\.test|name/ ],
) {
    my ($name, $pair, $more, $pattern) = @$_;
    my ($a, $b) = pair(@$pair, $more);
    my $address = '127.0.0.1:' . $b->sync;
    my @lines = $a->wait_log(qr/\[(?:error|warn)\].*\Q$address\E/);
    ok(scalar(grep { /$pattern/ } @lines), "$name: a log line names the peer and the reason") or diag($a->tail(20));
    is_deeply($b->keyvals('one'), {}, "$name: and nothing is sent");
    is($a->zone_sync->{status}{nodes_online}, 0, "$name: it isn't online");
    is($a->keyvals('one')->{secret}, 'v', "$name: the node goes on");
    # It is tried again for ever, but does not fill the log.
    sleep 1;
    cmp_ok(scalar($a->grep_log(qr/\[(?:error|warn)\].*\Q$address\E/)), '<', 8, "$name: the log is not flooded by retries");
    $_->stop for $a, $b;
}

for (
    [ 'the certificate names the address',   [ $ca->issue('c1', ip => ['127.0.0.1']) ], $verify ],
    [ 'the certificate names what is demanded', [ $ca->issue('c2', dns => ['c2.test']) ], "$verify zone_sync_ssl_name c2.test; zone_sync_ssl_server_name on;" ],
    [ 'no verification',                     [ $alien->issue('c3', dns => ['elsewhere']) ], 'zone_sync_ssl_verify off;' ],
    [ 'TLSv1.2 only', [ $ca->issue('c4', ip => ['127.0.0.1']) ], "$verify zone_sync_ssl_protocols TLSv1.2; zone_sync_ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;" ],
) {
    my ($name, $pair, $more) = @$_;
    my ($a, $b) = pair(@$pair, $more);
    eventually_is { $b->keyvals('one') } { secret => 'v' }, "$name: it arrives", 5;
    $_->stop for $a, $b;
}

# An encrypted key, for real; and a revoked certificate.
{
    my ($certificate, $key) = $ca->issue('d1', ip => ['127.0.0.1']);
    my $folder = $ca->folder;
    ZoneMesh::Certs::openssl(qw(ec -aes128 -passout pass:secret -in), $key, '-out', "$key.enc");
    open my $file, '>', "$folder/pass" or die $!;
    print {$file} "secret\n";
    close $file;
    my @nodes = my ($a, $b) = cluster(2, not_started => 1, tls => $ca);
    for my $node (@nodes) {
        my $stream = $node->{stream};
        $stream =~ s/(zone_sync_ssl_certificate) \S+;/$1 $certificate;/;
        $stream =~ s/(zone_sync_ssl_certificate_key) \S+;/$1 $key.enc; zone_sync_ssl_password_file $folder\/pass;/;
        $node->configure(stream => $stream)->start;
    }
    connected(1, @nodes);
    pass('nodes whose key is encrypted find each other');
}
{
    my ($certificate, $key) = $ca->issue('e1', ip => ['127.0.0.1']);
    my $crl = $ca->revoke($certificate);
    my ($a, $b) = pair($certificate, $key, "$verify zone_sync_ssl_crl $crl;");
    ok(scalar $a->wait_log(qr/\[(?:error|warn)\].*revoked/i), 'a revoked certificate: a log line says so') or diag($a->tail(20));
    is_deeply($b->keyvals('one'), {}, '... and nothing is sent');
}

# Lists of revoked certificates inbound, where nodes have theirs from an intermediate authority: nginx wants one of the root and
# one of each intermediate.
{
    my ($below, $fallen) = map { $ca->intermediate($_) } 'sound', 'fallen';
    my ($bad, $bad_key) = $below->issue('revoked');
    my ($other) = $fallen->issue('other');
    my ($good, $good_key) = $below->issue('good');
    my ($orphan, $orphan_key) = $fallen->issue('orphan');
    my @lists = map { ZoneMesh::Node::slurp($_) } $ca->revoke($fallen->file), $below->revoke($bad), $fallen->revoke($other);
    my $strict = sub {
        my $node = node(
            http   => 'keyval_zone zone=one:1m sync; server { listen 127.0.0.1:%%PORT%%; location /api { api; } }',
            stream => "server { listen 127.0.0.1:%%SYNC%% ssl; zone_sync; zone_sync_timeout 1s;
                ssl_certificate $good; ssl_certificate_key $good_key; ssl_verify_client on;
                ssl_client_certificate @{[ $ca->file ]}; ssl_verify_depth 2; ssl_crl crl.pem; }",
        );
        $node->write_file('crl.pem', join '', @_);
        return $node->start;
    };
    my $node = $strict->(@lists);
    my ($said) = s_client($node, [ '-cert', $good, '-key', $good_key, '-cert_chain', $below->file ], 2);
    is(((frames($said))[0] // [''])->[0], $TYPE{HELLO}, 'lists of the whole chain: who is on none is greeted');
    for (
        [ 'a revoked certificate',                       $bad,    $bad_key,    $below ],
        [ 'a certificate of an authority that is revoked', $orphan, $orphan_key, $fallen ],
    ) {
        my ($name, $certificate, $key, $issuer) = @$_;
        my $before = () = $node->grep_log(qr/certificate revoked/);
        ($said) = s_client($node, [ '-cert', $certificate, '-key', $key, '-cert_chain', $issuer->file ], 2);
        is($said, '', "$name: nothing is said to it");
        ok(scalar($node->wait_log(qr/\[info\].*client SSL certificate verify error: \(23:certificate revoked\)/, 5, $before)) > $before,
            '... and the log says why, at info');
    }
    $node->stop;
    $node = $strict->($lists[0]);
    ($said) = s_client($node, [ '-cert', $good, '-key', $good_key, '-cert_chain', $below->file ], 2);
    is($said, '', 'no list of an intermediate: whom it has issued a certificate is refused');
    ok(scalar $node->wait_log(qr/\[info\].*client SSL certificate verify error: \(3:unable to get certificate CRL\)/), '... and the log says why');
    $node->stop;
}

done_testing;

# What a peer says to `openssl s_client` with these arguments that says hello, and how long it kept the connection, at most
# `seconds`.
sub s_client {
    my ($node, $arguments, $seconds) = @_;
    my $began = time;
    pipe my $stdin, my $hold or die $!;    # an open input: s_client stays as long as the other side does
    syswrite $hold, hello();
    my $pid = open my $out, '-|';
    die "fork: $!" unless defined $pid;
    if (!$pid) {
        open STDIN,  '<&', $stdin;
        open STDERR, '>', '/dev/null';
        close $hold;
        exec 'timeout', $seconds, 'openssl', 's_client', '-quiet', '-connect', '127.0.0.1:' . $node->sync, @$arguments
            or POSIX::_exit(127);
    }
    my $said = do { local $/; <$out> } // '';
    close $out;
    return ($said, time - $began);
}
