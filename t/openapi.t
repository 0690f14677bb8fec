# docs/openapi.yaml says the truth: schemathesis, which nobody here wrote, makes requests from it, good ones and bad ones,
# and compares what a node answers with what it says.
#
# The tool comes from PyPI, once, into target/schemathesis; where that can't be reached this test is skipped.

use FindBin;
use lib "$FindBin::Bin/lib";
use Cwd ();
use ZoneMesh;

my $top    = Cwd::abs_path("$FindBin::Bin/..");
my $schema = "$top/docs/openapi.yaml";
my $tool   = installed("$top/target/schemathesis", "$FindBin::Bin/clients/schemathesis.txt");

my $node = node(
    workers => 2,
    http    => <<'CONF',
    keyval_zone zone=one:1m timeout=1h sync;
    keyval_zone zone=two:64k;
    limit_req_zone $arg_k zone=limits:64k rate=1r/s sync;
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        status_zone one;
        location /api { api write=on; status_zone one; }
    }
CONF
    stream => 'keyval_zone zone=three:1m timeout=1h; server { listen 127.0.0.1:%%SYNC%%; status_zone three; zone_sync; zone_sync_server 127.0.0.1:%%SYNC%%; }'
)->start;

# It takes names of files, and leaves files, where it runs.
my $config = copied('schemathesis.toml');
copied('schemathesis_hooks.py');
my @workers = $node->workers;
my $said    = join '', `cd '@{[ $node->prefix ]}' && '$tool' --config-file '$config' run '$schema' --url http://127.0.0.1:@{[ $node->port ]}/api --continue-on-failure --no-color 2>&1`;
is($?, 0, 'everything is answered as docs/openapi.yaml says') or diag($said);
my ($cases) = $said =~ /(\d+) generated/;
cmp_ok($cases // 0, '>', 100, '... by many requests') and note("$cases requests");

is($node->get('/api/9/nginx')->status, 200, 'and the node goes on');
is_deeply([ $node->workers ], \@workers, '... with the workers that it had');

done_testing;

# A file of t/clients in the node's folder.
sub copied { return $node->write_file($_[0], ZoneMesh::Node::slurp("$FindBin::Bin/clients/$_[0]")) }

# The tool's program, installed if need be.
sub installed {
    my ($folder, $wanted) = @_;
    my $program = "$folder/bin/schemathesis";
    return $program if -x $program && ZoneMesh::Node::slurp("$folder/installed.txt") eq ZoneMesh::Node::slurp($wanted);
    for my $command (
        "rm -rf '$folder'",
        "python3 -m venv '$folder'",
        "'$folder/bin/pip' install --quiet --disable-pip-version-check --retries 1 --timeout 20 --only-binary :all: -r '$wanted'",
        "cp '$wanted' '$folder/installed.txt'",
    ) {
        my $said = `$command 2>&1`;
        next if $? == 0;
        my ($why) = $said =~ /([^\n]+)\s*\z/;
        plan(skip_all => "schemathesis can't be installed from PyPI: " . ($why // 'no reason given'));
    }
    return $program;
}
