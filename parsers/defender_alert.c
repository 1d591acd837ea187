/* defender_alert */
