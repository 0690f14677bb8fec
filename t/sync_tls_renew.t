# TLS between nodes over time: sessions are resumed, certificates are renewed by a reload, chains and versions of TLS are what
# the directives say, and who refuses a certificate says whose it is and why.

use FindBin;
use lib "$FindBin::Bin/lib";
use File::Copy qw(copy);
use ZoneMesh;
use ZoneMesh::Cluster;

my $ca = authority('the CA of the cluster');

# What a node shows of another.
sub peer {
    my ($node, $other) = @_;
    return (grep { $_->{address} eq '127.0.0.1:' . $other->sync } @{ $node->get('/api/9/zonemesh/peers')->json })[0];
}

# A node that dials, and one that is dialled and writes of each session whether its handshake was short.
sub pair {
    my (%given) = @_;
    my ($dialled, $dialler) = map { node(name => $_, workers => 1) } qw(dialled dialler);
    my $http = 'keyval_zone zone=one:1m timeout=1h sync; server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } }';
    my ($shown, $shown_key) = @{ $given{shown} // [ $ca->issue('dialled', ip => ['127.0.0.1']) ] };
    my ($own, $own_key) = @{ $given{own} // [ $ca->issue('dialler', ip => ['127.0.0.1']) ] };
    $dialled->configure(http => $http, stream => "log_format short '\$ssl_protocol \$ssl_session_reused \$ssl_client_s_dn';
        server { listen 127.0.0.1:%%SYNC%% ssl; zone_sync; zone_sync_timeout 1s; access_log logs/sessions short;
            ssl_certificate $shown; ssl_certificate_key $shown_key; @{[ $given{inbound} // '' ]}
            ssl_client_certificate @{[ $ca->file ]}; ssl_verify_client on; }");
    $dialler->configure(http => $http, stream => "server { listen 127.0.0.1:%%SYNC%%; zone_sync; $ZoneMesh::Cluster::QUICK
        zone_sync_server 127.0.0.1:@{[ $dialled->sync ]}; zone_sync_ssl on; zone_sync_ssl_verify on;
        zone_sync_ssl_trusted_certificate @{[ $ca->file ]};
        zone_sync_ssl_certificate $own; zone_sync_ssl_certificate_key $own_key; @{[ $given{outbound} // '' ]} }");
    $_->start for $dialled, $dialler;
    return ($dialler, $dialled);
}

sub sessions { return split /\n/, ZoneMesh::Node::slurp($_[0]->prefix . '/logs/sessions') }

# Connections that are lost and made again go on with the session that was there.
for my $version (qw(TLSv1.2 TLSv1.3)) {
    my ($dialler, $dialled) = pair(outbound => "zone_sync_ssl_protocols $version;", inbound => "ssl_protocols $version;");
    $dialler->add('one', 'k', 'v');
    eventually_is { $dialled->keyvals('one') } { k => 'v' }, "$version: a session";
    # A worker that is killed takes its sessions with it; the next one has the same keys.
    allow_log(qr/exited on signal 9/);
    $dialled->kill_worker(($dialled->workers)[0]);
    $dialler->change('one', 'k', 'again');
    eventually_is { $dialled->keyvals('one') } { k => 'again' }, "$version: the connection was lost, another is there";
    my $certificate = peer($dialler, $dialled)->{certificate};
    is($certificate->{name}, '127.0.0.1', "$version: ... the other node is known all the same");
    # Written at the end of each.
    $dialler->stop;
    ok(wait_for(sub { sessions($dialled) }), "$version: sessions are logged");
    my @last = sessions($dialled);
    like($last[-1], qr/^\Q$version\E r CN=dialler$/, "$version: ... and the last one resumed the one before") or diag(join "\n", @last);
    $dialled->stop;
}

# Certificates that are renewed on disk, with another end, are taken up by a reload.
{
    my @nodes = my ($first, $second) = cluster(2, not_started => 1, tls => $ca);
    my $folder = $ca->folder;
    for my $node (@nodes) { copy("$folder/" . $node->name . ".$_", "$folder/" . $node->name . "-live.$_") or die $! for qw(pem key) }
    for my $node (@nodes) {
        (my $stream = $node->{stream}) =~ s{/(node\d)\.(pem|key)}{/$1-live.$2}g;
        $stream =~ s{zone_sync;}{zone_sync; access_log logs/sessions serial;} or die 'no zone_sync';
        $node->configure(stream => "log_format serial '\$ssl_client_serial'; $stream")->start;
    }
    connected(1, @nodes);
    $first->add('one', 'before', 'v');
    everywhere(\@nodes, 'before', 'v', 'before the renewal');
    my $end = sub { my ($node) = @_; my ($other) = grep { $_ != $node } @nodes; return peer($other, $node)->{certificate}{expires} };
    my %before = map { ($_->name => $end->($_)) } @nodes;
    my $serial = sub { my ($file) = @_; return qx(openssl x509 -noout -serial -in '$file') =~ /^serial=(\w+)$/m ? $1 : die "$file has no serial number" };
    for my $node (@nodes) {
        my ($other) = grep { $_ != $node } @nodes;
        my $old = $serial->("$folder/" . $node->name . '-live.pem');
        my ($certificate, $key) = $ca->issue($node->name, ip => ['127.0.0.1'], days => 90);
        # By rename, as who renews does it: from 1.27.4 on nginx keeps what is in a file of the same inode and second over a reload.
        for ([ $certificate, 'pem' ], [ $key, 'key' ]) {
            my ($from, $live) = ($_->[0], "$folder/" . $node->name . "-live.$_->[1]");
            copy($from, "$live.new") && rename("$live.new", $live) or die $!;
        }
        is($node->add('one', 'during, ' . $node->name, 'v'), 201, $node->name . ': renewed, writes go on');
        my $connected = qr/connected to node/;
        my $before = $node->grep_log($connected);
        $node->reload;
        eventually { ($end->($node) // '') gt $before{ $node->name } } $node->name . ': the other node sees the new certificate', 10;
        everywhere(\@nodes, 'during, ' . $node->name, 'v', $node->name . ': ... nothing is lost');
        # What the node shows when it dials: the other one writes it down when the session ends.
        ok(scalar $node->wait_log($connected, 10, $before) > $before, $node->name . ': it dials the other node again');
        eventually { grep { $_ eq $old } sessions($other) } $node->name . ': ... whom it had shown the old certificate', 10;
        ok(!grep({ $_ eq $serial->($certificate) } sessions($other)), $node->name . ': ... and not the new one');
        $node->reload;
        eventually { grep { $_ eq $serial->($certificate) } sessions($other) } $node->name . ': ... and which sees the new one then', 10;
    }
    connected(1, @nodes);
    # A connection may meet a worker that is about to end, and be closed without a word; refused for its certificate it is not.
    my $refused = qr/zone_sync peer .*(?:the peer's certificate|the issuer of|refused with the alert)|SSL certificate verify error/;
    is(scalar($_->grep_log($refused)), 0, $_->name . ': no certificate was refused meanwhile') for @nodes;
    $_->stop for @nodes;
}

# Who refuses a certificate says so, and so does who is refused.
{
    my ($dialler, $dialled) = pair(own => [ $ca->issue('late', ip => ['127.0.0.1'], days => -1) ], outbound => 'zone_sync_ssl_protocols TLSv1.2;');
    ok(scalar $dialled->wait_log(qr/\[info\].*client SSL certificate verify error: \(10:certificate has expired\).*client: 127\.0\.0\.1/),
        'a certificate of the dialling node that expired: the other one says why');
    ok(scalar $dialler->wait_log(qr/\[warn\].*zone_sync peer 127\.0\.0\.1:@{[ $dialled->sync ]}: .*zone_sync_ssl_certificate/),
        '... and the dialling one whom to ask') or diag($dialler->tail(10));
    eventually_is { peer($dialler, $dialled)->{state} } 'unreachable', '... and the API that there is no connection';
    like(peer($dialler, $dialled)->{error}{text}, qr/zone_sync_ssl_certificate/, '... with the reason');
    is_deeply($dialled->keyvals('one'), {}, '... nothing is sent');
    $_->stop for $dialler, $dialled;
}

# A list of revoked certificates that is out of date is no list.
{
    my ($certificate, $key) = $ca->issue('revoked', ip => ['127.0.0.1']);
    my $crl = $ca->revoke($certificate, past => 1);
    my ($dialler, $dialled) = pair(outbound => "zone_sync_ssl_crl $crl;");
    ok(scalar $dialler->wait_log(qr/\[warn\].*127\.0\.0\.1:@{[ $dialled->sync ]}: .*a list in zone_sync_ssl_crl is out of date/),
        'a revocation list that is out of date: the log says so, and of which peer') or diag($dialler->tail(10));
    $_->stop for $dialler, $dialled;
}

# Certificates of intermediate authorities, both ways; the depth counts them.
{
    my $between = $ca->intermediate('an authority between');
    my $chain = sub {
        my ($name) = @_;
        my ($certificate, $key) = $between->issue($name, ip => ['127.0.0.1']);
        my $file = $between->folder . "/$name.chain";
        open my $out, '>', $file or die "$file: $!";
        print {$out} ZoneMesh::Node::slurp($certificate), ZoneMesh::Node::slurp($between->file);
        close $out;
        return [ $file, $key ];
    };
    my %both = (shown => $chain->('chained'), own => $chain->('own-chained'), inbound => 'ssl_verify_depth 2;');
    my ($dialler, $dialled) = pair(%both);
    $dialler->add('one', 'k', 'v');
    eventually_is { $dialled->keyvals('one') } { k => 'v' }, 'an intermediate authority on both sides: what is written arrives';
    $_->stop for $dialler, $dialled;
    ($dialler, $dialled) = pair(%both, outbound => 'zone_sync_ssl_verify_depth 0;');
    ok(scalar $dialler->wait_log(qr/\[warn\].*127\.0\.0\.1:@{[ $dialled->sync ]}: .*the peer sent 1 intermediate certificates, and zone_sync_ssl_verify_depth allows 0/),
        '... with a depth of 0 it is refused, and the log says why') or diag($dialler->tail(10));
    is_deeply($dialled->keyvals('one'), {}, '... nothing is sent');
    $_->stop for $dialler, $dialled;
}

done_testing;
