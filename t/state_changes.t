# A zone whose file takes long to write: what changes is appended beside it, soon after each change, and comes back whatever is
# killed when. A file that somebody puts there wins, and what is damaged is told.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

use File::Copy ();

allow_log(qr/exited on signal 9/);
my $records = 90_000;
my $frame = <<'CONF';
    server {
        listen 127.0.0.1:%%PORT%%;
        location /api { api write=on; }
    }
CONF
my %zone = (plain => 'keyval_zone zone=one:48m', shared => 'keyval_zone zone=one:48m sync');
sub conf { my ($kind, $more) = @_; return (http => "$zone{$kind} " . ($more // 'state=state/one.json') . ";\n$frame") }
sub slurp { return ZoneMesh::Node::slurp($_[0]) }

my ($node, $folder, $file);
sub about    { return $node->get('/api/9/zonemesh/zones/one')->json->{state} }
sub saved    { my ($what) = @_; eventually { !about()->{pending} } $what; return }
sub value_of { my $pair = $node->get("/api/9/http/keyvals/one?key=$_[0]"); return $pair->status == 200 ? $pair->json->{ $_[0] } : undef }
sub changes  { my @files = glob "$folder/one.json.*.changes"; return @files }

# A file as somebody else wrote it.
sub fill {
    open my $out, '>:raw', $file or die "$file: $!";
    print {$out} "{\n", join(",\n", map { sprintf '"key%d":"value %d %s"', $_, $_, 'v' x 80 } 1 .. $records), "\n}\n";
    close $out or die $!;
    return;
}

for my $kind ('plain', 'shared') {
    $node   = node(name => $kind, workers => 2, conf($kind));
    $folder = $node->worker_folder('state');
    $file   = "$folder/one.json";
    fill();
    $node->start;
    my $before = (stat $file)[1];

    # Each kind of change.
    $node->change('one', 'key1', 'changed');
    saved("$kind: a change is on the disk");
    my $shown = about();
    is($shown->{writes}, 0, "$kind: ... and the file wasn't written anew");
    is((stat $file)[1], $before, "$kind: ... it is the one that was there");
    cmp_ok($shown->{changes}{appends}, '>=', 1, "$kind: ... but something was appended");
    is($shown->{changes}{bytes}, -s((changes())[0]), "$kind: ... of so many bytes");
    like($shown->{changes}{appended}, qr/^\d{4}-\d\d-\d\dT[\d:.]+Z$/, "$kind: ... at a time that is shown");
    is((stat +(changes())[0])[2] & 0777, (stat $file)[2] & 0777, "$kind: ... for those who may read the file");
    $node->drop('one', 'key2');
    $node->add('one', 'new', "\x{1f980}\n\"");
    $node->add('one', 'gone again', 'v');
    $node->drop('one', 'gone again');
    saved("$kind: deletes and new ones too");

    # kill -9 of everything.
    $node->crash->start;
    ok(scalar $node->wait_log(qr/keyval_zone "one" in .*: with the changes of 1 files that follow ".*one\.json"/), "$kind: kill -9 of everything: the log says what is read");
    is(value_of('key1'), 'changed', "$kind: ... a change is there");
    is(value_of('key2'), undef, "$kind: ... a delete");
    is(value_of('new'), "\x{1f980}\n\"", "$kind: ... a new pair");
    is(value_of('gone%20again'), undef, "$kind: ... and one that was deleted is not");
    is(value_of("key$records"), "value $records " . 'v' x 80, "$kind: ... and what the file had");
    is($node->get('/api/9/zonemesh/zones/one')->json->{records}, $records, "$kind: ... and no more");

    # Whoever runs the helper thread next goes on.
    $node->change('one', 'key3', 'before the kill');
    $node->kill_worker($node->agent_worker);
    $node->change('one', 'key4', 'after the kill');
    saved("$kind: a worker killed: another goes on");
    $node->reload;
    $node->change('one', 'key5', 'after the reload');
    saved("$kind: a reload: the new workers go on");
    is(about()->{writes}, 0, "$kind: ... and the file is still as it was");
    $node->check;
    my @there = map { [ $_, (stat $_)[ 1, 7, 9 ] ] } glob "$folder/*";
    $node->check;
    is_deeply([ map { [ $_, (stat $_)[ 1, 7, 9 ] ] } glob "$folder/*" ], \@there, "$kind: nginx -t writes nothing");
    $node->crash->start;
    is_deeply([ map { value_of("key$_") } 3 .. 5 ], [ 'before the kill', 'after the kill', 'after the reload' ], "$kind: kill -9 of everything: all is there");

    # Emptied, and filled again.
    $node->clear('one');
    $node->add('one', 'after', 'v');
    saved("$kind: an emptying");
    $node->crash->start;
    is_deeply($node->keyvals('one'), { after => 'v' }, "$kind: ... holds");

    # Random moments: what was said to be on the disk is there, and nothing that never was.
    my ($late, $broken) = (0, 0);
    $node->add('one', 'count', '0');
    for my $round (1 .. 4) {
        my $pid = fork // die "fork: $!";
        if (!$pid) {
            my $n = 0;
            eval { $node->change('one', 'count', sprintf '%d', $round * 1e6 + ++$n) } while 1;
        }
        wait_for(sub { value_of('count') > $round * 1e6 + 20 }, 10) or $broken++;
        sleep rand 0.7;
        kill 'STOP', $pid;
        my $sure = value_of('count');
        wait_for(sub { !about()->{pending} }, 5) or $broken++;
        kill 'CONT', $pid;
        sleep rand 0.4;
        $node->crash;
        kill 'KILL', $pid;
        waitpid $pid, 0;
        $node->start;
        my $is = value_of('count') // 0;
        $late++ if $is < $sure;
        $broken++ if $is !~ /^\d+$/ || $is > ($round + 1) * 1e6;
    }
    is("$late $broken", '0 0', "$kind: kill -9 at random moments: what was said to be on the disk is there");

    # In the end there is one file.
    $node->add('one', 'key1', 'last');
    ok(defined $node->quit, "$kind: nginx quits");
    is_deeply([ glob "$folder/*" ], [$file], "$kind: ... and leaves one file");
    my $pair = json(slurp($file))->{key1};
    is(ref $pair ? $pair->{value} : $pair, 'last', "$kind: ... with all in it");
}

# Files that don't belong together, and damage.
{
    $node   = node(name => 'damaged', workers => 1, conf('plain'));
    $folder = $node->worker_folder('state');
    $file   = "$folder/one.json";
    fill();
    $node->start;
    $node->change('one', "key$_", 'changed') for 1 .. 3;
    saved('changes are appended');
    $node->crash;
    my ($changes) = changes();
    my $text = slurp($changes);
    my $spill = sub { open my $out, '>:raw', $changes or die $!; print {$out} $_[0]; close $out or die $!; return };

    $spill->($text =~ s/"key2":\{/"key2":[/r);
    allow_log(qr/\[emerg\].*one\.json/);
    my $place = index($text, '"key2":{') + 7;
    eval { $node->start; 1 };
    ok(scalar $node->wait_log(qr/\[emerg\].*keyval_zone "one" in .*the state file ".*one\.json" is followed by ".*one\.json\.\d+\.changes", which is damaged at byte $place: a string or an object/), 'damage within refuses the start, with file, byte and reason');
    $spill->($text . '{"key4":{"value":"ha');
    $node->start;
    is_deeply([ map { value_of("key$_") } 1 .. 4 ], [ ('changed') x 3, 'value 4 ' . 'v' x 80 ], 'a line that is half there at the end is passed over');
    $node->change('one', 'key5', 'changed');
    saved('... and what comes then is appended elsewhere');
    $node->crash->start;
    is_deeply([ map { value_of("key$_") } 3, 5 ], [ ('changed') x 2 ], '... and both are read');

    # A file from elsewhere, also one that is byte for byte the same, wins.
    $node->crash;
    File::Copy::copy($file, "$folder/copy") or die $!;
    File::Copy::copy("$folder/copy", $file) or die $!;
    unlink "$folder/copy";
    $node->start;
    is(value_of('key1'), 'value 1 ' . 'v' x 80, 'a state file that was put back wins over changes of before');
    ok(scalar $node->wait_log(qr/one\.json": 2 files of changes beside it follow another state file than the one that is there, and were left out/), '... which the log says');

    # state= goes, and comes back: nothing of before is taken for new.
    $node->change('one', 'key1', 'before');
    saved('changes follow the new one');
    $node->reload(conf('plain', ''));
    $node->change('one', 'key1', 'meanwhile');
    $node->change('one', 'key6', 'meanwhile');
    $node->reload(conf('plain'));
    saved('without state= and with it again: the zone is in the file');
    eventually_is(sub { [changes()] }, [], '... and no changes of before stay beside it');
    $node->change('one', 'key6', 'after');
    saved('... and later ones follow');
    $node->crash->start;
    is_deeply([ map { value_of($_) } 'key1', 'key6' ], [ 'meanwhile', 'after' ], '... also after kill -9 of everything');
    $node->quit;
}

done_testing;
