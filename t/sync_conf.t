# zone_sync and every zone_sync_* directive: each works or is refused with a message that says what to do; none is ignored.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $ca = authority('the CA');
my ($certificate, $key) = $ca->issue('node', ip => ['127.0.0.1']);
my ($other_certificate, $other_key) = $ca->issue('other', ip => ['127.0.0.1']);
my $folder = $ca->folder;
ZoneMesh::Certs::openssl(qw(ec -aes256 -passout pass:secret -in), $key, '-out', "$folder/encrypted.key");
ZoneMesh::Certs::openssl(qw(pkcs8 -topk8 -passout pass:secret -in), $key, '-out', "$folder/encrypted8.key");
for (
    [ 'passwords',       "wrong\nsecret\n" ],
    [ 'wrong_passwords', "wrong\n" ],
    [ 'nonsense.pem',    "nonsense\n" ],
    [ 'empty.pem',       '' ],
) {
    open my $file, '>', "$folder/$_->[0]" or die $!;
    print {$file} $_->[1];
    close $file;
}

my $listen = 'listen 127.0.0.1:%%SYNC%%;';
my $peer   = 'zone_sync_server 127.0.0.1:9000;';
my $zone   = 'keyval_zone zone=one:64k timeout=1h sync;';

# A configuration whose server with zone_sync says this, and whose stream block says that.
sub server { my ($server, $stream) = @_; return { http => $zone, stream => ($stream // '') . " server { $listen $server }" } }

# Accepted.

config_works(server("zone_sync; $peer"), 'the least');
config_works(server('zone_sync;'), 'no peer: only receives');
config_works(server('zone_sync; zone_sync_server 127.0.0.1:9000; zone_sync_server [::1]:9000; zone_sync_server unix:/tmp/peer.sock;'),
    'addresses of IPv4, IPv6 and unix sockets');
config_works(server('zone_sync; zone_sync_server localhost:9000;'), 'a name, resolved at start');
config_works({ http => '', stream => "server { $listen zone_sync; $peer }" }, 'no zone to share');
config_works(
    server("zone_sync; zone_sync_server 127.0.0.1:%%SYNC%%; $peer zone_sync_buffers 16 8k; zone_sync_recv_buffer_size 64k;
        zone_sync_connect_retry_interval 2s; zone_sync_connect_timeout 3s; zone_sync_interval 10ms; zone_sync_timeout 4s;
        zone_sync_max_drift 2s;"),
    'sizes and times, in the server'
);
config_works(
    server("zone_sync; $peer", 'zone_sync_buffers 16 8k; zone_sync_recv_buffer_size 64k; zone_sync_connect_retry_interval 2s;
        zone_sync_connect_timeout 3s; zone_sync_interval 1s; zone_sync_timeout 4s; zone_sync_max_drift 500ms; zone_sync_ssl off;'),
    'sizes and times, in stream'
);
my $tls = "zone_sync_ssl on; zone_sync_ssl_certificate $certificate; zone_sync_ssl_certificate_key $key;";
my $said = config_works(
    server("zone_sync; $peer $tls zone_sync_ssl_trusted_certificate @{[ $ca->file ]}; zone_sync_ssl_verify on;
        zone_sync_ssl_verify_depth 2; zone_sync_ssl_name node; zone_sync_ssl_server_name on;
        zone_sync_ssl_protocols TLSv1.2 TLSv1.3; zone_sync_ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305;"),
    'all of TLS, in the server'
);
unlike($said, qr/\[warn\]/, '... without a warning');
config_works(server("zone_sync; $peer $tls zone_sync_ssl_ciphers HIGH:!aNULL:!MD5;"), 'ciphers as the guides write them');
config_works(
    server("zone_sync; $peer", "$tls zone_sync_ssl_trusted_certificate @{[ $ca->file ]}; zone_sync_ssl_verify on;
        zone_sync_ssl_verify_depth 2; zone_sync_ssl_name node; zone_sync_ssl_server_name on;
        zone_sync_ssl_protocols TLSv1.3; zone_sync_ssl_ciphers DEFAULT;"),
    'all of TLS, in stream'
);
for my $encrypted (qw(encrypted.key encrypted8.key)) {
    config_works(
        server("zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_certificate $certificate;
            zone_sync_ssl_certificate_key $folder/$encrypted; zone_sync_ssl_password_file $folder/passwords;"),
        "an encrypted key ($encrypted), whose password is the second line of a file"
    );
}

# With a warning.

sub warns {
    my ($conf, $patterns, $name) = @_;
    my ($ok, $said) = config_check(%$conf);
    my @match = grep { /\[warn\]/ } split /\n/, $said;
    for my $pattern (@$patterns) { @match = grep { /$pattern/ } @match }
    ok($ok && @match, $name) or diag($said);
}

warns(server("zone_sync; $peer $tls zone_sync_ssl_protocols TLSv1 TLSv1.1 TLSv1.2;"), [ qr/zone_sync_ssl_protocols/, qr/TLSv1/ ],
    'old protocols beside a new one are warned about and left out');
warns(server("zone_sync; $peer $tls zone_sync_ssl_ciphers AES128-SHA:ECDHE-ECDSA-AES128-GCM-SHA256;"),
    [ qr/zone_sync_ssl_ciphers/, qr/AES_?128/ ], 'ciphers that the TLS library lacks are warned about and left out');
warns(server('zone_sync; zone_sync_server 192.0.2.1:9000;'), [ qr/zone_sync_server|zone_sync_ssl/, qr/192\.0\.2\.1:9000/, qr/plain|encrypt|TLS|ssl/i ],
    'plain text to an address that is not loopback is warned about');
warns({ http => $zone, stream => "server { listen *:%%SYNC%%; zone_sync; $peer }" }, [ qr/plain|encrypt|TLS|ssl/i ],
    'so is plain text from one');
unlike((config_check(%{ server("zone_sync; $peer zone_sync_server unix:/tmp/peer.sock; zone_sync_server [::1]:9000;") }))[1],
    qr/\[warn\]/, 'plain text on loopback and unix sockets is not');

# Refused.

my $off = qr/not supported by this version of zonemesh/;
for (
    [ "zone_sync on; $peer",                       'zone_sync takes no parameter', qr/number of arguments in "zone_sync"/ ],
    [ 'zone_sync; zone_sync_server;',              'no address',        qr/number of arguments in "zone_sync_server"/ ],
    [ 'zone_sync; zone_sync_server 127.0.0.1;',    'no port',           qr/zone_sync_server/, qr/127\.0\.0\.1/, qr/port/ ],
    [ 'zone_sync; zone_sync_server [::1];',        'no port after an IPv6 address', qr/zone_sync_server/, qr/port/ ],
    [ 'zone_sync; zone_sync_server localhost;',    'no port after a name', qr/zone_sync_server/, qr/localhost/, qr/port/ ],
    [ 'zone_sync; zone_sync_server 127.0.0.1:0;',  'port 0',            qr/zone_sync_server/, qr/port/ ],
    [ 'zone_sync; zone_sync_server 127.0.0.1:70000;', 'a port too large', qr/zone_sync_server/, qr/port/ ],
    [ 'zone_sync; zone_sync_server 127.0.0.1:x;',  'a port that is no number', qr/zone_sync_server/, qr/port/ ],
    [ 'zone_sync; zone_sync_server no-such-host.invalid:9000;', 'a name that does not resolve', qr/no-such-host\.invalid/, qr/zone_sync_server/ ],
    [ 'zone_sync; zone_sync_server unix:;',        'a unix socket without a path', qr/zone_sync_server/, qr/path/ ],
    [ 'zone_sync; zone_sync_server localhost:9000 twice;', 'an unknown parameter', qr/zone_sync_server/, qr/"twice"/ ],
    [ "zone_sync; zone_sync; $peer",               'zone_sync twice in one server', qr/"zone_sync" .*duplicate/ ],
    [ "zone_sync; $peer zone_sync_buffers 8;",     'buffers without a size', qr/number of arguments in "zone_sync_buffers"/ ],
    [ "zone_sync; $peer zone_sync_buffers 0 4k;",  'no buffers',        qr/zone_sync_buffers/ ],
    [ "zone_sync; $peer zone_sync_buffers 8 x;",   'a bad size',        qr/zone_sync_buffers|invalid value/ ],
    [ "zone_sync; $peer zone_sync_buffers 8 10;",  'a size too small for anything', qr/zone_sync_buffers/ ],
    [ "zone_sync; $peer zone_sync_recv_buffer_size x;", 'a bad size',   qr/zone_sync_recv_buffer_size/ ],
    [ "zone_sync; $peer zone_sync_timeout never;", 'a bad time',        qr/zone_sync_timeout/ ],
    [ "zone_sync; $peer zone_sync_timeout 1s; zone_sync_timeout 2s;", 'a directive twice', qr/"zone_sync_timeout" .*duplicate/ ],
    [ "zone_sync; $peer zone_sync_max_drift x;",   'a bad time',        qr/zone_sync_max_drift/ ],
    [ "zone_sync; $peer zone_sync_interval x;",    'a bad time',        qr/zone_sync_interval/ ],
    [ "zone_sync; $peer zone_sync_connect_timeout x;", 'a bad time',    qr/zone_sync_connect_timeout/ ],
    [ "zone_sync; $peer zone_sync_connect_retry_interval x;", 'a bad time', qr/zone_sync_connect_retry_interval/ ],
    [ "zone_sync; $peer zone_sync_ssl maybe;",     'on or off',         qr/zone_sync_ssl/, qr/maybe/ ],
    [ "zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_certificate $certificate;", 'a certificate without a key', qr/zone_sync_ssl_certificate_key/ ],
    [ "zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_certificate_key $key;", 'a key without a certificate', qr/zone_sync_ssl_certificate/ ],
    [ "zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_certificate $folder/none.pem; zone_sync_ssl_certificate_key $key;", 'a certificate that is not there', qr/none\.pem/ ],
    [ "zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_certificate $folder/nonsense.pem; zone_sync_ssl_certificate_key $key;", 'a certificate that is none', qr/zone_sync_ssl_certificate/, qr/nonsense\.pem/ ],
    [ "zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_certificate $certificate; zone_sync_ssl_certificate_key $folder/nonsense.pem;", 'a key that is none', qr/zone_sync_ssl_certificate_key/, qr/nonsense\.pem/ ],
    [ "zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_certificate $certificate; zone_sync_ssl_certificate_key $other_key;", 'a key of another certificate', qr/zone_sync_ssl_certificate/, qr/other\.key|node\.pem/ ],
    [ "zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_certificate $certificate; zone_sync_ssl_certificate_key $folder/encrypted.key;", 'an encrypted key without a password file', qr/encrypted\.key/, qr/zone_sync_ssl_password_file/ ],
    [ "zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_certificate $certificate; zone_sync_ssl_certificate_key $folder/encrypted.key; zone_sync_ssl_password_file $folder/wrong_passwords;", 'an encrypted key and the wrong password', qr/encrypted\.key/, qr/wrong_passwords|password/ ],
    [ "zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_verify on;", 'verification against nothing', qr/zone_sync_ssl_verify/, qr/zone_sync_ssl_trusted_certificate/ ],
    [ "zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_verify on; zone_sync_ssl_trusted_certificate $folder/empty.pem;", 'an empty file of authorities', qr/zone_sync_ssl_trusted_certificate/, qr/empty\.pem/ ],
    [ "zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_verify on; zone_sync_ssl_trusted_certificate @{[ $ca->file ]}; zone_sync_ssl_crl $folder/none.pem;", 'a revocation list that is not there', qr/none\.pem/ ],
    [ "zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_verify on; zone_sync_ssl_trusted_certificate @{[ $ca->file ]}; zone_sync_ssl_crl $folder/nonsense.pem;", 'a revocation list that is none', qr/zone_sync_ssl_crl/, qr/nonsense\.pem/ ],
    [ "zone_sync; $peer zone_sync_ssl on; zone_sync_ssl_verify_depth x;", 'a depth that is no number', qr/zone_sync_ssl_verify_depth/ ],
    [ "zone_sync; $peer $tls zone_sync_ssl_protocols TLSv1 SSLv3;", 'old protocols alone', qr/zone_sync_ssl_protocols/, qr/TLSv1\.2/ ],
    [ "zone_sync; $peer $tls zone_sync_ssl_protocols TLSv9;", 'an unknown protocol', qr/TLSv9/ ],
    [ "zone_sync; $peer $tls zone_sync_ssl_ciphers nonsense;", 'ciphers that nobody knows', qr/zone_sync_ssl_ciphers/, qr/nonsense/ ],
    [ "zone_sync; $peer $tls zone_sync_ssl_ciphers AES128-SHA; zone_sync_ssl_protocols TLSv1.2;", 'only ciphers that the TLS library lacks', qr/zone_sync_ssl_ciphers/, qr/no cipher/ ],
    [ "zone_sync; $peer $tls zone_sync_ssl_conf_command MinProtocol TLSv1.3;", 'OpenSSL commands', qr/zone_sync_ssl_conf_command/, qr/zone_sync_ssl_protocols/ ],
    [ "zone_sync; $peer $tls zone_sync_ssl_conf_command Curves X25519;", 'other OpenSSL commands', qr/zone_sync_ssl_conf_command/ ],
) {
    my ($server, $name, @patterns) = @$_;
    config_fails(server($server), \@patterns, "refused: $name (" . ($patterns[0] =~ /(zone_sync\w*)/ ? $1 : 'zone_sync') . ')');
}

config_fails(
    { http => $zone, stream => "server { $listen zone_sync; $peer } server { listen 127.0.0.1:%%PORT%%; zone_sync; }" },
    [ qr/zone_sync/, qr/server/, qr/already|second|one/ ], 'refused: zone_sync in a second server'
);
config_fails({ http => $zone, stream => "$peer server { $listen zone_sync; }" },
    qr/"zone_sync_server" directive is not allowed here/, 'refused: zone_sync_server in stream');
config_fails({ http => $zone, stream => "zone_sync; server { $listen $peer }" },
    qr/"zone_sync" directive is not allowed here/, 'refused: zone_sync in stream');
config_fails({ http => "$zone server { zone_sync; }" }, qr/"zone_sync" directive is not allowed here/, 'refused: zone_sync in http');
warns({ http => $zone, stream => "server { $listen $peer return x; }" }, [ qr/zone_sync_server/, qr/no effect/ ],
    'zone_sync_server in a server without zone_sync is warned about');
warns({ http => $zone, stream => "server { $listen zone_sync_timeout 1s; $tls return x; }" }, [ qr/"zone_sync_timeout"/, qr/no effect/ ],
    'so is any other directive of zone_sync there');
unlike((config_check(http => $zone, stream => "zone_sync_timeout 1s; server { $listen return x; }"))[1], qr/\[warn\]/,
    '... but not one that such a server inherits');
(my $forgotten = $tls) =~ s/zone_sync_ssl on;//;
warns(server("zone_sync; $peer $forgotten"), [ qr/"zone_sync_ssl_certificate"/, qr/zone_sync_ssl on/ ],
    'a directive of TLS is warned about if nothing turns TLS on');
warns(server("zone_sync; $peer", $forgotten), [ qr/"zone_sync_ssl_certificate"/, qr/zone_sync_ssl on/ ], '... in stream too');
unlike((config_check(%{ server("zone_sync; $peer zone_sync_ssl off;", $forgotten) }))[1], qr/\[warn\]/,
    '... and not if TLS is turned off in so many words');
warns(server("zone_sync; $peer $tls zone_sync_ssl_trusted_certificate @{[ $ca->file ]};"),
    [ qr/"zone_sync_ssl_trusted_certificate"/, qr/zone_sync_ssl_verify on/ ], 'authorities are warned about if nothing turns verification on');
config_fails({ http => $zone, stream => "server { listen 127.0.0.1:%%SYNC%% udp; zone_sync; $peer }" }, [ qr/zone_sync/, qr/udp/ ],
    'refused: zone_sync over UDP');

done_testing;
