"""Ways to break a rule, and the case that has to notice: (case, what stands there, instead)."""

from __future__ import annotations

from typing import Final

MUTANTS: Final[list[tuple[str, str, str]]] = [
    # unplanned exit, ours
    ("crash_then_planned", "increase(penstock_unplanned_exits", "increase(penstock_commits"),
    ("crash_then_planned", "          ) > 0\n          or\n", "          ) > 1\n          or\n"),
    (
        "crash_before_the_first_scrape_without_kubernetes",
        "< 15 * 60)\n          )\n        l",
        "< 0)\n          )\n        l",
    ),
    (
        "first_scrape_of_an_old_journal",
        "< 15 * 60)\n          )\n        l",
        "< 15 * 6000)\n          )\n        l",
    ),
    (
        "crash_under_systemd",
        '",planned="false"}\n            and',
        '",planned=~".*"}\n            and',
    ),
    (
        "planned_restart",
        '",planned="false"}\n            and',
        '",planned="true"}\n            and',
    ),
    # unplanned exit, by kube-state-metrics
    ("planned_restart", "!= 0 != 4", "!= 0"),
    ("planned_stop_that_the_kubelet_undoes", "!= 0 != 4", "!= 4"),
    ("out_of_memory_as_a_whole", "!= 0 != 4", "!= 0 != 4 != 137"),
    (
        "old_crash_then_new_planned_restart",
        'exitcode",container="penstock"} != 0 != 4',
        (
            'exitcode",container="penstock"} != 0 != 4 or max_over_time('
            'kube_pod_container_status_last_terminated_exitcode{container="penstock"}[2h]'
            ") != 0 != 4"
        ),
    ),
    ("crash", "< 15 * 60)\n            )[10m:30s])", "< 60 * 60)\n            )[10m:30s])"),
    ("crash_then_planned", "[10m:30s]", "[1m:30s]"),
    ("ksm_gap_after_a_crash", "[10m:30s]", "[1m:30s]"),
    (
        "crash_in_a_ksm_gap",
        "< 15 * 60)\n            )[10m:30s])",
        "< 5 * 60)\n            )[10m:30s])",
    ),
    (
        "crash_of_a_native_sidecar",
        "kube_pod_(init_)?container_status_last_terminated_exitcode",
        "kube_pod_container_status_last_terminated_exitcode",
    ),
    ("planned_restart", '",container="penstock"}', '"}'),
    # pods and jobs that failed
    ("pod_failed_under_restart_rules", 'phase="Failed"}', 'phase="Succeeded"}'),
    ("pod_succeeded_under_restart_rules", '{phase="Failed"}', '{phase=~"Failed|Succeeded"}'),
    (
        "pod_failed_under_restart_rules",
        (
            "            and on (namespace, pod, uid) "
            "(time() - kube_pod_completion_time < 15 * 60)\n"
            "            unless"
        ),
        "            unless",
    ),
    (
        "batch_run_that_is_restarted",
        '            unless on (namespace, pod, uid) kube_pod_owner{owner_kind="Job"}\n',
        "",
    ),
    (
        "failed_pod_that_is_being_deleted",
        (
            "            unless on (namespace, pod, uid) kube_pod_deletion_timestamp\n"
            "          )\n        l"
        ),
        "          )\n        l",
    ),
    (
        "planned_restart",
        'kube_pod_container_info{container="penstock"}\n            and',
        "kube_pod_container_info\n            and",
    ),
    ("batch_run_that_failed", 'condition="true"} == 1', 'condition="false"} == 1'),
    (
        "batch_run_that_failed",
        (
            "              and on (namespace, pod, uid) "
            "(time() - kube_pod_completion_time < 15 * 60),\n"
        ),
        "              ,\n",
    ),
    (
        "batch_run_that_is_restarted",
        '          and on (namespace, job_name) (kube_job_failed{condition="true"} == 1)\n',
        "",
    ),
    ("job_of_other_people_that_failed", "and on (namespace, job_name)", "and on (namespace)"),
    # drains and storms
    ("drain_deadline_missed", 'code="2"}[15m]', 'code="3"}[15m]'),
    ("crash", '{container="penstock",code="2"}[15m]', '{container="penstock",code=~".*"}[15m]'),
    ("storm", ") >= 5", ") >= 9"),
    ("planned_restarts_every_ten_minutes", ") >= 5", ") >= 3"),
    ("crash_loop", 'planned="true"}[30m]', 'planned=~".*"}[30m]'),
    ("storm_of_stops", "sum without (code, name)", "max without (code, name)"),
    (
        "planned_restarts_of_a_pod_that_is_scraped_twice",
        "sum without (code, name)",
        "sum without (code, name, job)",
    ),
    # not ready
    ("never_joins", "for: 10m", "for: 30m"),
    ("waits_for_sidecar_and_session_timeout", "for: 10m", "for: 1m"),
    ("never_joins_without_kubernetes", 'state="running"} == 0', 'state="running"} == 2'),
    ("quiet_for_a_while", 'state="running"} == 0', 'state="running"} <= 1'),
    (
        "image_cannot_be_pulled",
        'container_status_ready",container="penstock"} == 0',
        'container_status_ready",container="penstock"} == 2',
    ),
    ("finished_batch_run_stays_around", 'phase=~"Succeeded|Failed"', 'phase=~"Failed"'),
    (
        "failed_pod_that_is_being_deleted",
        (
            'phase=~"Succeeded|Failed"} == 1)\n            unless on (namespace, pod, uid) '
            "kube_pod_deletion_timestamp\n"
        ),
        'phase=~"Succeeded"} == 1)\n',
    ),
    # lag
    ("lag_jitters", "            min_over_time((", "            max_over_time(("),
    ("lag_after_one_burst", "[10m:1m] offset 15m", "[10m:1m] offset 40m"),
    ("lag_growing", "[10m:1m] offset 15m", "[10m:1m] offset 3h"),
    ("lag_of_less_than_a_minute_growing", "> 60 *", "> 1 *"),
    ("lag_growing_slowly_in_one_stuck_partition", "> 60 *", "> 100 + 60 *"),
    (
        "lag_growing_while_partitions_move",
        "(namespace, container, job, topic, partition)",
        "(namespace, container, job, topic, partition, pod)",
    ),
    ("lag_unknown", "            max_over_time((", "            0 * max_over_time(("),
    # dead letters
    ("dead_letters_refused", 'outcome="failed"}[5m]', 'outcome="ok"}[5m]'),
    (
        "dead_letters_refused_now_and_then",
        (
            "          unless\n"
            "          max by (namespace, pod, container, topic) (\n"
            "            increase(penstock_dead_letter_sends_total"
            '{container="penstock",outcome="ok"}[5m])\n'
            "          ) > 0\n"
        ),
        "",
    ),
    # One that never was taken has a series, too: at 0.
    (
        "dead_letters_refused",
        'outcome="ok"}[5m])\n          ) > 0\n',
        'outcome="ok"}[5m])\n          )\n',
    ),
    ("dead_letters_refused", "[5m]", "[30s]"),
    ("dead_letters_refused_until_the_partition_moves", "[5m]", "[15m]"),
    (
        "dead_letters_refused_for_a_while",
        'outcome="ok"}[5m])\n          ) > 0\n        for: 10m',
        'outcome="ok"}[5m])\n          ) > 0\n        for: 5m',
    ),
    (
        "dead_letters_of_another_topic_and_pod_are_taken",
        "unless\n          max by (namespace, pod, container, topic)",
        "unless on (namespace, pod)\n          max by (namespace, pod, container, topic)",
    ),
    (
        "dead_letters_of_another_topic_and_pod_are_taken",
        "unless\n          max by (namespace, pod, container, topic)",
        "unless on (namespace, topic)\n          max by (namespace, pod, container, topic)",
    ),
    # circuit breakers
    (
        "breaker_open",
        'penstock_breaker_open{container="penstock"}',
        "penstock_breaker_opened_total",
    ),
    ("breaker_open_for_a_while", "[2m]", "[10m]"),
    (
        "breaker_that_probes_close_for_a_moment",
        'max_over_time(penstock_breaker_open{container="penstock"}[2m])',
        'penstock_breaker_open{container="penstock"}',
    ),
    ("breaker_open_again_and_again", "[2m]", "[6m]"),
    (
        "breaker_open_for_a_while",
        "[2m])\n          ) > 0\n        for: 10m",
        "[2m])\n          ) > 0\n        for: 5m",
    ),
    # no metrics
    (
        "pod_that_nobody_scrapes",
        'penstock_build_info{container="penstock"}\n          )\n          or',
        'kube_pod_container_info{container="penstock"}\n          )\n          or',
    ),
    (
        "static_target_down_for_good",
        'up{container="penstock"}) == 0',
        'up{container="penstock"}) == 2',
    ),
    (
        "crash_loop_before_the_journal",
        (
            "            unless on (namespace, pod)\n"
            '            {__name__=~"kube_pod_(init_)?container_info",container="penstock"}\n'
        ),
        "",
    ),
    ("nothing_at_all", 'absent(penstock_build_info{container="penstock"})', "vector(0) > 1"),
    (
        "nothing_at_all_in_a_cluster_that_is_watched",
        "            unless on () kube_node_info\n",
        "",
    ),
    ("static_target_down_for_good", '            unless on () up{container="penstock"}\n', ""),
]
