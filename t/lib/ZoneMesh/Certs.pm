package ZoneMesh::Certs;

# A throw-away certificate authority and the certificates it issues, by the openssl command.
#
#     my $ca = authority('our CA');
#     my ($certificate, $key) = $ca->issue('node1', dns => ['node1.test'], ip => ['127.0.0.1']);
#     $ca->file;    # PEM of the authority

use strict;
use warnings;

use File::Temp ();
use POSIX qw(strftime);

sub new {
    my ($class, $name) = @_;
    my $folder = File::Temp->newdir('zonemesh-ca-XXXXXX', TMPDIR => 1, CLEANUP => !$ENV{ZONEMESH_KEEP});
    chmod 0755, "$folder";
    my $self = bless { folder => $folder, name => $name // 'throw-away CA', serial => 1 }, $class;
    openssl(
        qw(req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30), '-subj', "/CN=$self->{name}",
        '-addext', 'keyUsage=critical,keyCertSign,cRLSign',
        '-keyout', "$folder/ca.key", '-out', "$folder/ca.pem"
    );
    return $self;
}

sub file   { return "$_[0]{folder}/ca.pem" }
sub folder { return "$_[0]{folder}" }

# A certificate for these names, good for both sides of a connection: (certificate file, key file).
# `days => -1` makes one that has expired.
sub issue {
    my ($self, $name, %given) = @_;
    my $folder = $self->{folder};
    my @names  = ((map { "DNS:$_" } @{ $given{dns} // [] }), (map { "IP:$_" } @{ $given{ip} // [] }));
    @names = ("DNS:$name") unless @names;
    my $serial = ++$self->{serial};
    openssl(
        qw(req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes), '-subj', "/CN=$name",
        '-keyout', "$folder/$name.key", '-out', "$folder/$name.csr"
    );
    open my $extensions, '>', "$folder/$name.ext" or die "$folder/$name.ext: $!";
    print {$extensions} "basicConstraints=CA:FALSE\nsubjectAltName=", join(',', @names),
        "\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n";
    close $extensions;
    openssl(
        qw(x509 -req -sha256), validity($given{days} // 30), '-set_serial', $serial,
        '-CA', "$folder/ca.pem", '-CAkey', "$folder/ca.key",
        '-in', "$folder/$name.csr", '-extfile', "$folder/$name.ext", '-out', "$folder/$name.pem"
    );
    return ("$folder/$name.pem", "$folder/$name.key");
}

# Options for a certificate that ends in so many days. OpenSSL 3.4 and later make none that ends before it begins, and those
# before it can't be told when it begins.
sub validity {
    my ($days) = @_;
    my ($major, $minor) = qx(openssl version) =~ /^OpenSSL (\d+)\.(\d+)/ or die "openssl doesn't say its version\n";
    return ('-days', $days) if $days > 0 || $major < 3 || $major == 3 && $minor < 4;
    my @times = map { strftime('%Y%m%d%H%M%SZ', gmtime(time + $_ * 86_400)) } 2 * $days, $days;
    return ('-not_before', $times[0], '-not_after', $times[1]);
}

# An authority that this one answers for, one level below it.
sub intermediate {
    my ($self, $name) = @_;
    my $folder = File::Temp->newdir('zonemesh-ca-XXXXXX', TMPDIR => 1, CLEANUP => !$ENV{ZONEMESH_KEEP});
    chmod 0755, "$folder";
    my $below = bless { folder => $folder, name => $name, serial => 1, above => $self }, ref $self;
    openssl(
        qw(req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes), '-subj', "/CN=$name",
        '-keyout', "$folder/ca.key", '-out', "$folder/ca.csr"
    );
    open my $extensions, '>', "$folder/ca.ext" or die "$folder/ca.ext: $!";
    print {$extensions} "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";
    close $extensions;
    openssl(
        qw(x509 -req -sha256 -days 30), '-set_serial', ++$self->{serial}, '-CA', $self->file, '-CAkey', "$self->{folder}/ca.key",
        '-in', "$folder/ca.csr", '-extfile', "$folder/ca.ext", '-out', "$folder/ca.pem"
    );
    return $below;
}

# Revokes a certificate; gives the file of the revocation list. `past => 1`: one that is out of date.
sub revoke {
    my ($self, $certificate, %given) = @_;
    my $folder = $self->{folder};
    open my $config, '>', "$folder/ca.cnf" or die "$folder/ca.cnf: $!";
    print {$config} "[ca]\ndefault_ca=own\n[own]\ndatabase=$folder/index\ndefault_md=sha256\ndefault_crl_days=30\n"
        . "crl_extensions=crl\ncrlnumber=$folder/crlnumber\n[crl]\nauthorityKeyIdentifier=keyid\n";
    close $config;
    open my $index, '>>', "$folder/index" or die "$folder/index: $!";
    close $index;
    open my $number, '>', "$folder/crlnumber" or die "$folder/crlnumber: $!";
    print {$number} "01\n";
    close $number;
    my @as = ('-config', "$folder/ca.cnf", '-keyfile', "$folder/ca.key", '-cert', "$folder/ca.pem");
    openssl('ca', @as, '-revoke', $certificate);
    my @past = $given{past} ? qw(-crl_lastupdate 20200101000000Z -crl_nextupdate 20200102000000Z) : ();
    openssl('ca', @as, '-gencrl', @past, '-out', "$folder/crl.pem");
    return "$folder/crl.pem";
}

# Runs openssl quietly; dies with what it said if it fails.
sub openssl {
    my @command = ('openssl', @_);
    my $log = File::Temp->new;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDIN,  '<', '/dev/null';
        open STDOUT, '>', "$log";
        open STDERR, '>', "$log";
        exec @command or do { require POSIX; POSIX::_exit(127) };
    }
    waitpid $pid, 0;
    return if $? == 0;
    my $said = do { local $/; <$log> } // '';
    die "'@command' failed: $said";
}

1;
