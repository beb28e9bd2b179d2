"""The QMT source's tests, and the table of every known pitfall with the test that holds it.

Pitfalls: what is known of ``xtquant`` 250807.1.2, from its code, its documents and its users' reports.
"""

PITFALLS: dict[str, str] = {
    # Connecting
    "the compiled module exists for Windows alone": "test_child::test_where_the_compiled_part_does_not_exist_it_says_so",
    "xtquant is an optional requirement": "test_child::test_without_the_package_it_says_what_to_install",
    "importing xtquant asks PyPI": "test_child::test_importing_asks_no_package_index",
    "silent cross-wiring (shown)": "test_child::test_the_vendors_own_code_lands_on_another_terminal",
    "silent cross-wiring (held)": "test_child::test_it_never_lands_on_another_terminal",
    "connect() keeps another connection": "test_vendor::test_connect_keeps_another_connection_and_reconnect_does_not",
    "the peer is another one": "test_child::test_a_wrong_peer_stops_the_child_until_it_is_right",
    "the status callback must be set before connecting": "test_vendor::test_the_status_callback_must_be_set_before_connecting",
    "no disconnect callback but the status one": "test_child::test_the_status_callback_tells_of_a_lost_connection",
    "the singleton is not for web processes": "test_child::test_only_the_child_has_the_vendors_package",
    "subscriptions are lost when the terminal restarts": "test_pushes::test_subscriptions_lost_with_the_terminal_are_made_again",
    "connected and mute": "test_pushes::test_a_terminal_that_answers_but_pushes_nothing_is_subscribed_again",
    "silent because the market is": "test_pushes::test_a_quiet_market_is_not_mistaken_for_a_mute_terminal",
    "a call hangs for 150 s": "test_child::test_a_hung_call_ends_at_its_deadline_and_nobody_else_feels_it",
    "connecting hangs": "test_child::test_a_terminal_that_accepts_and_never_answers_is_given_up",
    "a download waits without a timeout": "test_history::test_a_hung_download_is_cut_off_and_the_terminal_works_again",
    "the compiled part crashes": "test_child::test_a_crash_of_the_compiled_part_fails_the_call_and_starts_a_new_child",
    "a function is not realized": "test_child::test_a_function_that_is_not_realized_is_unsupported_and_the_terminal_is_up",
    "what one broker's terminal lacked": "test_child::test_the_functions_that_one_brokers_terminal_lacked_are_not_needed",
    "get_trading_calendar downloads first": "test_history::test_the_calendar_that_downloads_first_is_never_asked",
    "no sector data": "test_child::test_without_sector_data_the_universe_is_refused_with_what_to_do",
    # Threads
    "what a callback raises is swallowed (shown)": "test_vendor::test_what_a_callback_raises_is_swallowed_and_printed",
    "what a callback raises is swallowed (held)": "test_pushes::test_callbacks_raise_nothing_whatever_comes",
    "requests come from one thread": "test_child::test_a_call_that_waits_for_its_turn_too_long_harms_nobody",
    "the vendor prints": "test_child::test_what_the_vendor_prints_goes_to_the_log_and_breaks_nothing",
    "pure Python BSON": "test_pushes::test_pushes_of_thousands_pass_the_pure_python_bson_complete",
    # Time
    "Beijing midnight in another zone (shown)": "test_child::test_beijing_midnight_read_in_utc_is_the_previous_day",
    "Beijing midnight in another zone (held)": "test_child::test_a_child_in_another_zone_refuses_to_work",
    "Beijing midnight in our own code": "test_history::test_beijing_midnight_stays_its_own_day",
    "start and end of mixed types": "test_vendor::test_start_and_end_of_mixed_types_are_a_type_error",
    # Ticks
    "{} ticks": "test_parse::test_empty_ticks_are_parse_errors",
    "{} ticks in a push": "test_pushes::test_an_empty_tick_in_a_push_is_a_parse_error",
    "one-level books": "test_parse::test_one_level_books_are_books",
    "raw double prices": "test_parse::test_raw_doubles_are_rounded_to_the_price_tick",
    "volume in lots, pvolume in shares": "test_parse::test_volume_is_pvolume_in_shares",
    "openInt is a stock's status": "test_parse::test_open_int_is_the_trading_status_of_a_stock",
    "openInt is a future's open interest": "test_parse::test_open_int_is_the_open_interest_of_a_future",
    "stockStatus says nothing": "test_parse::test_stock_status_is_ignored",
    "1.797e308, 2147483647, 0": "test_parse::test_unset_prices_are_none",
    "callbacks of single subscriptions hold lists": "test_pushes::test_single_pushes_hold_a_list_of_ticks",
    "callbacks of whole quotes hold ticks": "test_pushes::test_whole_quote_pushes_hold_one_tick_of_a_symbol",
    "a market's token is 26,700 instruments": "test_pushes::test_the_universe_is_asked_by_code_in_chunks_and_never_by_market",
    # History and reference data
    "subscribe=True by default (over the wire)": "test_history::test_asking_for_bars_leaves_no_subscription",
    "subscribe=True by default (the parameter)": "test_history::test_subscribe_is_false_where_the_function_has_the_parameter",
    "zero-filled rows": "test_history::test_padding_is_not_returned_and_is_counted",
    "rows on days without trading": "test_history::test_rows_on_days_without_trading_are_refused",
    "500 symbols and more time out": "test_history::test_history_is_downloaded_first_in_parts_of_fewer_than_500",
    "IsTrading is False for a live stock": "test_history::test_is_trading_false_on_a_live_stock_does_not_matter",
    "unset fields of instruments": "test_history::test_unset_instrument_fields_are_none",
    "FloatVolumn": "test_vendor::test_old_terminals_are_read_with_their_own_spelling",
}
