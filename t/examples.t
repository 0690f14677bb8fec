# The configurations in nginx-conf/ load and do what their comments say, with nothing changed but addresses.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster qw(connected);

my $examples = "$FindBin::Bin/../nginx-conf";

# A node with this example as its nginx.conf, and what the example expects beside it. Its includes are copied, too.
sub example {
    my ($file, %change) = @_;
    my $node = node(name => $file, conf => '', workers => $change{workers} // 1);
    my $prefix = $node->prefix;
    mkdir "$prefix/$_" for qw(modules certs);
    symlink ZoneMesh::Node::module_file('stream'),   "$prefix/modules/ngx_stream_module.so";
    symlink ZoneMesh::Node::module_file('zonemesh'), "$prefix/modules/ngx_zonemesh_module.so";
    my $folder = "$examples/$file" =~ s{/[^/]+$}{}r;
    for my $path ("$examples/$file", grep { !/node\d/ } glob "$folder/*.conf") {
        my $text = ZoneMesh::Node::slurp($path);
        $text =~ s/\Q$_\E/$change{replace}{$_}/g for keys %{ $change{replace} };
        my ($name) = $path =~ m{([^/]+)$};
        $path eq "$examples/$file" ? $node->configure(conf => $text) : $node->write_file($name, $text);
    }
    return $node;
}

{
    my $port = port();
    my $node = example('single.conf', replace => { ':8080' => ":$port" });
    $node->configure(port => $port)->start;
    is($node->get('/')->body, "welcome\n", 'single.conf: an address that nobody blocked');
    is($node->add('clients', '127.0.0.1', 'blocked'), 201, 'single.conf: blocked by the API');
    is($node->get('/')->status, 403, 'single.conf: it is');
    is($node->drop('clients', '127.0.0.1'), 204, 'single.conf: and no longer');
    is($node->get('/')->status, 200, 'single.conf: it is not');
}

{
    my ($http, $sync) = (port(), port());
    my $ca = authority('the CA');
    my @nodes = map {
        my $n    = $_;
        my $node = example("cluster/node$n.conf", workers => 2, replace => {
            ':8080' => ":$http", ':9000' => ":$sync"
        });
        my ($certificate, $key) = $ca->issue("node$n", ip => ["127.0.0.1$n"]);
        my $prefix = $node->prefix;
        system('cp', $certificate, "$prefix/certs/node.pem") == 0 && system('cp', $key, "$prefix/certs/node.key") == 0
            && system('cp', $ca->file, "$prefix/certs/ca.pem") == 0 or die 'cp';
        $node->configure(host => "127.0.0.1$n", port => $http)->start;
    } 1 .. 3;
    connected(2, @nodes);
    is($nodes[0]->add('sessions', 's1', 'alice'), 201, 'cluster: a session on node 1');
    for my $node (@nodes) {
        eventually_is { $node->get('/whoami?session=s1')->body } "alice\n", 'cluster: it is known to ' . $node->name;
    }
    is($nodes[2]->drop('sessions', 's1'), 204, 'cluster: it ends on node 3');
    for my $node (@nodes) {
        eventually_is { $node->get('/whoami?session=s1')->status } 403, 'cluster: and is unknown to ' . $node->name;
    }
}

done_testing;
