# A new binary (USR2) beside the old one: the state file is the new one's alone, and the old one's again if the new one goes.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $node = node(workers => 1, daemon => 1, http => <<'CONF');
    keyval_zone zone=one:1m state=state/one.json;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api { api write=on; add_header X-Pid $pid always; }
    }
CONF
my $folder = $node->worker_folder('state');
my $file   = "$folder/one.json";
sub in_file  { return json(ZoneMesh::Node::slurp($file))->{ $_[0] } }
sub pid_file { return ZoneMesh::Node::slurp($node->prefix . "/logs/$_[0]") =~ /^(\d+)$/ ? $1 : 0 }
sub is_gone  { return !-e "/proc/$_[0]" || ZoneMesh::Node::slurp("/proc/$_[0]/stat") =~ /^\d+ \(.*\) Z/s }

sub master_of {
    my $pid = $_[0]->header('x-pid') // '';
    return ZoneMesh::Node::slurp("/proc/$pid/stat") =~ /^\d+ \(.*\) \S (\d+)/s ? $1 : 0;
}

# Writes to the node of this master: a request may reach either.
sub write_to {
    my ($master, $key) = @_;
    my $n = 0;
    return wait_for(sub {
        my $name = "$key." . $n++;
        my $answer = $node->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode({ $name => 'v' }));
        return $answer->status == 201 && master_of($answer) == $master ? $name : undef;
    }, 10) // die "master $master takes no writes";
}

sub upgrade {
    my $old = $node->pid;
    $node->signal('USR2') or die 'nginx does not run';
    my $new = wait_for(sub { my $pid = pid_file('nginx.pid'); $pid && $pid != $old && pid_file('nginx.pid.oldbin') == $old ? $pid : 0 }, 10)
        or die "no new binary after 10 s:\n" . $node->tail(20);
    return ($old, $new);
}

$node->start;
$node->add('one', 'first', 'v');
eventually { (in_file('first') // '') eq 'v' } 'the state file is there';

# The new one is sent away: the old one keeps the file again.
{
    my ($old, $new) = upgrade();
    my $of_new = write_to($new, 'new');
    eventually { in_file($of_new) } 'the new binary writes what it takes';
    my $of_old = write_to($old, 'old');
    my $again = write_to($new, 'again');
    eventually { in_file($again) } '... and goes on';
    is(in_file($of_old), undef, '... while what the old one takes is not written');
    is(in_file('first'), 'v', '... and what the file had is there');
    kill 'QUIT', $new or die $!;
    ok(wait_for(sub { is_gone($new) }, 10), 'the new one is sent away');
    eventually { in_file($of_old) } '... and the old one writes what it has', 10;
    is(in_file($of_new), undef, '... which is all that the file has');
}

# The old one goes.
{
    my ($old, $new) = upgrade();
    my $of_new = write_to($new, 'new');
    eventually { in_file($of_new) } 'the next new binary writes what it takes';
    my $of_old = write_to($old, 'old');
    kill 'QUIT', $old or die $!;
    ok(wait_for(sub { is_gone($old) }, 10), 'the old one ends');
    waitpid $old, 0;
    $node->{pid} = $new;
    is(in_file($of_old), undef, '... without a last word in the file');
    ok(in_file($of_new), '... which is as the new one wrote it');
    $node->add('one', 'last', 'v');
    eventually { in_file('last') } '... and goes on to';
    is(scalar(() = glob "$file.*"), 0, '... with nothing beside it');
}

# A file of an upgrade whose masters were killed: its number may be the master's own by now, or that of a process which has nothing
# to do with it. (This test started this nginx, but is none.)
{
    my $alone = node(workers => 1, http => <<'CONF', stream => <<'STREAM');
    keyval_zone zone=one:1m sync state=%%PREFIX%%/state/one.json;
    server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } }
CONF
    server { listen 127.0.0.1:%%SYNC%%; zone_sync; zone_sync_server 127.0.0.1:%%SYNC%%; }
STREAM
    $alone->worker_folder('state');
    $alone->start;
    my $own = qr/session of an unknown node ended: the peer is this node itself/;
    $alone->wait_log($own);
    my $filed = sub { json(ZoneMesh::Node::slurp($alone->prefix . '/state/one.json'))->{ $_[0] } };
    for my $left ([ 'of nobody', 3_999_999 ], [ 'of another process', $$ ], [ 'of its own', $alone->pid ]) {
        my ($whose, $pid) = @$left;
        $alone->write_file('logs/nginx.pid.oldbin', "$pid\n");
        # For longer than between two looks at it.
        my $before = $alone->grep_log($own);
        sleep 1.5;
        is(scalar(my @now = $alone->grep_log($own)), $before, "a left file with a number $whose: the node doesn't look for another one");
        $alone->add('one', "key $pid", 'v');
        eventually { $filed->("key $pid") } '... and writes its state file';
    }
}

done_testing;
