#!/usr/bin/perl
# Watching a zone: its changes as server-sent events, whichever worker or node made them.
use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Watch;

allow_log(qr/exited on signal 9/);    # workers that this test kills

my $locations = <<'CONF';
    add_header X-Worker $pid always;
    server {
        listen 127.0.0.1:%%PORT%% sndbuf=16k;
        location /api  { api write=on; }
        location /read { api; }
        location /set  { set $of_one $arg_v; return 200 $pid; }
    }
CONF

my $node = node(workers => 2, http => <<"CONF")->start;
    keyval_zone zone=one:1m timeout=1h;
    keyval_zone zone=a/b:64k;
    keyval_zone zone=big:8m;
    keyval \$arg_key \$of_one zone=one;
    $locations
CONF

sub watch { return ZoneMesh::Watch->new(@_) }

# As many watchers as it takes until each of two workers has some.
sub on_both_workers {
    my (@options) = @_;
    my (@watchers, %workers);
    until (keys %workers >= 2 && @watchers >= 4) {
        die 'all connections go to one worker' if @watchers > 200;
        push @watchers, watch(@options);
        $workers{ $watchers[-1]->header('x-worker') } = 1;
    }
    return @watchers;
}

# Sets a pair by a variable, in each of the workers.
sub set_everywhere {
    my (%workers);
    until (keys %workers == 2) {
        $workers{ $node->get('/set?key=w' . keys(%workers) . '&v=' . time)->body }++;
        die 'all connections go to one worker' if grep { $_ > 200 } values %workers;
    }
    return;
}

subtest 'what is asked for' => sub {
    my $watch = watch($node, 'one');
    is($watch->status, 200, 'a stream');
    is($watch->header('content-type'),      'text/event-stream', 'of events');
    is($watch->header('cache-control'),     'no-store',          'not for caches');
    is($watch->header('x-accel-buffering'), 'no',                'and not to be gathered by proxies');
    $watch->close;
    my $target = '/api/9/zonemesh/keyvals/one/watch';
    my $head   = $node->request('HEAD', $target);
    is($head->status, 200, 'HEAD has an end');
    is($node->request('OPTIONS', $target)->header('Allow'), 'GET, HEAD, OPTIONS', 'what is allowed');
    is($node->post($target, '{}')->status, 405, 'nothing is posted to it');
    my $none = $node->get('/api/9/zonemesh/keyvals/none/watch');
    is($none->status, 404, 'no such zone');
    is($none->json->{error}{code}, 'KeyvalNotFound', 'says so');
    my $bad = $node->get("$target?position=what");
    is($bad->status, 400, 'a position that is none');
    is($bad->json->{error}{code}, 'WatchPositionError', 'says so');
    my $slash = watch($node, 'a/b');
    $node->add('a/b', 'k', 'v');
    is_deeply($slash->wait_for(1), ['set k'], 'a zone with a slash in its name');
};

subtest 'every change, from every worker, to all who want it' => sub {
    my @all = on_both_workers($node, 'one');
    my $only = watch($node, 'one', prefix => 'w0');
    my $set = set_everywhere();
    my %seen;
    for my $watch (@all) {
        $seen{ join ',', sort grep { /^set w[01]$/ } @{ $watch->linger(0.1)->wait_for(2) } }++;
    }
    is_deeply([ grep { !/set w0/ || !/set w1/ } keys %seen ], [], 'what each worker set came to each watcher');
    ok(!(grep { $_ ne 'set w0' } @{ $only->wait_for(1) }), 'only keys with the prefix');
    is($node->drop('one', 'w0'), 204, 'a delete');
    is_deeply($_->wait_for(1), ['delete w0'], 'comes to all') for @all, $only;
    is($node->post('/api/9/http/keyvals/one', '{"w0 short":{"value":"x","expire":150}}')->status, 201, 'a short life');
    is_deeply($_->wait_for(2), [ 'set w0 short', 'expire w0 short' ], 'comes and goes') for @all, $only;
    is($node->clear('one'), 204, 'emptying');
    is_deeply($_->wait_for(1), ['clear'], 'is one event') for @all, $only;
};

subtest 'what an event says' => sub {
    my $watch = watch($node, 'one');
    is($node->add('one', "k\x{e9}y", "a\nb"), 201, 'a pair');
    my ($event) = $watch->take(1);
    is_deeply([ @{ $event->{data} }{qw(key value)} ], [ "k\x{e9}y", "a\nb" ], 'key and value');
    ok($event->{data}{expire} > 3_590_000 && $event->{data}{expire} <= 3_600_000, 'the life that is left');
    like(my $first = $event->{data}{version}, qr/^[0-9a-f]{16}-[0-9a-f]{32}$/, 'the version');
    $node->get("/set?key=raw&v=\xff\xfe");
    ($event) = $watch->take(1);
    is_deeply($event->{data}{value}, { base64 => '//4=' }, 'a value that is not UTF-8');
    ok($event->{data}{version} gt $first, 'of a later version');
};

subtest 'who comes back misses nothing' => sub {
    $node->clear('one');
    my $watch = watch($node, 'one');
    $node->add('one', $_, 'v') for qw(a b c d);
    is_deeply([ sort @{ $watch->wait_for(4) } ], [ map { "set $_" } qw(a b c d) ], 'changes');
    $watch->settle;
    $watch->close;
    $node->change('one', 'a', 'w');
    $node->drop('one', 'b');
    $node->add('one', 'e', 'v');
    $node->post('/api/9/http/keyvals/one', '{"f":{"value":"x","expire":50}}');
    eventually_is { $node->keyvals('one') } { a => 'w', c => 'v', d => 'v', e => 'v' }, 'more of them, while nobody watches';
    my $again = watch($node, 'one', after => $watch);
    my %state = (a => 'v', b => 'v', c => 'v', d => 'v');
    wait_for(sub {
        for my $event ($again->take(1, 1)) {
            if ($event->{name} eq 'set') { $state{ $event->{data}{key} } = $event->{data}{value} }
            else                         { delete $state{ $event->{data}{key} // '' } }
            die 'a reset' if $event->{name} eq 'reset';
        }
        return JSON::PP->new->canonical->encode(\%state) eq '{"a":"w","c":"v","d":"v","e":"v"}';
    });
    is_deeply(\%state, { a => 'w', c => 'v', d => 'v', e => 'v' }, 'are told');
    $again->settle;
    $node->add('one', 'after', 'v');
    is_deeply($again->wait_for(1), ['set after'], 'and what comes later');
};

subtest 'everything' => sub {
    $node->clear('one');
    is($node->post('/api/9/http/keyvals/one', ZoneMesh::Node::encode({ map { ("key $_" => 'v') } 1 .. 300 }))->status, 201, 'pairs');
    my @from_start = (watch($node, 'one', position => '0', prefix => 'key 1'), watch($node, 'one', position => '0'));
    my @told = map { $_->wait_for(1 + 111) } $from_start[0];
    is($told[0][0], 'reset', 'first the old is to be forgotten');
    is(scalar @{ $told[0] }, 1 + 111, 'and then all that begins so comes');
    is(scalar @{ $from_start[1]->wait_for(301) }, 301, 'or all that there is');
    my $lost = watch($node, 'one', headers => { 'Last-Event-ID' => 'not ours' });
    is(scalar @{ $lost->wait_for(301) }, 301, 'for a position that is none as well');
};

subtest 'a client that does not read' => sub {
    my @quick = on_both_workers($node, 'big');
    my $slow = watch($node, 'big', small => 1);
    my $value = 'v' x 5000;
    my @keys  = map { "key $_" } 1 .. 8;
    $node->add('big', $_, 'new') for @keys;
    for my $round (1 .. 30) {
        $node->change('big', $_, "$round $value") for @keys;
        $_->read(0) for @quick;
    }
    # The last value of each key, or the names of those for which it didn't come.
    my $stale = sub {
        my ($watch) = @_;
        my %round = map { ($_ => 0) } @keys;
        wait_for(sub {
            ($round{ $_->{data}{key} }) = $_->{data}{value} =~ /^(\d+)/ for grep { $_->{data}{value} ne 'new' } $watch->take(1, 0.1);
            return !grep { $_ != 30 } values %round;
        }, 20);
        return [ grep { $round{$_} != 30 } @keys ];
    };
    is_deeply($stale->($_), [], 'the others have all last values') for @quick;
    is_deeply($stale->($slow), [], 'and it too, once it reads');
    cmp_ok($slow->bytes, '<', 30 * 8 * 5000 * 0.9, 'without each change that it slept through');
};

subtest 'a reload' => sub {
    my @watchers = on_both_workers($node, 'one');
    $_->settle for @watchers;
    $node->reload;
    eventually { !$node->old_workers } 'old workers do not wait for those who watch', 10;
    for my $watch (@watchers) {
        $watch->linger(5);
        ok($watch->ended && $watch->closed, 'whose streams end');
    }
    $node->add('one', 'reloaded', 'v');
    my $again = watch($node, 'one', after => $watchers[0]);
    ok((grep { $_ eq 'set reloaded' } @{ $again->wait_for(1) }), 'and go on in the new workers');
};

subtest 'a worker is killed' => sub {
    my $small = node(http => <<"CONF")->start;
        keyval_zone zone=one:64k;
        keyval \$arg_key \$of_one zone=one;
        $locations
CONF
    my $watch = watch($small, 'one');
    for my $n (1 .. 66) {
        $watch->settle;
        $small->kill_worker(($small->workers)[0]);
        $watch->linger(5);
        $watch = watch($small, 'one', after => $watch);
        last if $watch->status != 200;
    }
    is($watch->status, 200, 'more often than there are walkers: those of the dead are given back');
    $watch->settle;
    $watch->take(0);
    $small->add('one', 'k', 'v');
    is_deeply($watch->wait_for(1), ['set k'], 'and the last one works');
};

subtest 'a cluster' => sub {
    my @nodes = cluster(2);
    my $watch = watch($nodes[0], 'one');
    is($nodes[1]->add('one', 'far', 'v'), 201, 'a change on another node');
    is_deeply($watch->wait_for(1), ['set far'], 'is told here');
    is($nodes[1]->drop('one', 'far'), 204, 'a delete there');
    is_deeply($watch->wait_for(1), ['delete far'], 'too');
    is($nodes[1]->post('/api/9/http/keyvals/one', '{"short":{"value":"x","expire":300}}')->status, 201, 'a short life there');
    is_deeply($watch->wait_for(2), [ 'set short', 'expire short' ], 'ends here');
    is($nodes[1]->clear('one'), 204, 'emptying there');
    is_deeply($watch->wait_for(1), ['clear'], 'too');
    $watch->settle;
    $watch->close;
    $nodes[0]->add('one', 'later', 'v');
    everywhere(\@nodes, 'later', 'v', 'a change while nobody watches');
    my $there = watch($nodes[1], 'one', after => $watch);
    my $told = $there->wait_for(1);
    ok((grep { $_ eq 'set later' } @$told) && !(grep { $_ eq 'reset' } @$told), 'is told by another node from there on');
};

done_testing;
