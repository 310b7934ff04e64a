/* What assembly needs of l1.h's marks (checked against it in main.c). */
#define MARK_PORT  0xb5
#define MARK_L2    2
#define MARK_ENTRY 4
#define MARK_EXIT  8
