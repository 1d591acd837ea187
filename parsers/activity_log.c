/* activity_log */
