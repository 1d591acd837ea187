/* main.c - the binary: finds the subcommand and hands over. */
int main(void)
{
    return 2;
}
